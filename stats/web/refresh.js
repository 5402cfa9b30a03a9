// Fetches the page anew and puts its main part in place of the old one. What is unfolded, scrolled or focused stays so.
(() => {
	"use strict";
	const period = 2000, patience = 10000, key = "managedpg.unfolded";
	const live = document.getElementById("live");
	let paused = false, timer = 0;

	// What is unfolded, by id: a holder may be gone for one refresh and be back with the next one.
	let unfolded = new Set();
	try { unfolded = new Set(JSON.parse(sessionStorage.getItem(key))); } catch { /* there is none */ }
	const remember = (id, open) => {
		open ? unfolded.add(id) : unfolded.delete(id);
		try { sessionStorage.setItem(key, JSON.stringify([...unfolded].slice(-100))); } catch { /* it's only for a reload */ }
	};
	const unfold = (root) => {
		for (const d of root.querySelectorAll("details[id]")) d.open = unfolded.has(d.id);
	};

	// Text that somebody is marking, to copy a stack, would be lost.
	const marking = () => {
		const s = getSelection();
		return s && !s.isCollapsed && document.getElementById("main").contains(s.anchorNode);
	};

	const replace = (fresh) => {
		const old = document.getElementById("main"), next = document.adoptNode(fresh.getElementById("main"));
		for (const d of old.querySelectorAll("details[id]")) remember(d.id, d.open);
		unfold(next);
		const scrolled = [...old.querySelectorAll(".scroll[id]")].map((e) => [e.id, e.scrollLeft]);
		const focused = old.contains(document.activeElement) ? document.activeElement : null;
		const place = focused && focused.parentElement.id, tag = focused && focused.tagName;
		old.replaceWith(next);
		for (const [id, left] of scrolled) {
			const e = document.getElementById(id);
			if (e) e.scrollLeft = left;
		}
		if (place) {
			const e = document.querySelector("#" + CSS.escape(place) + " > " + tag);
			if (e) e.focus({ preventScroll: true });
		}
		for (const place of ["#status time", ".process"]) {
			document.querySelector(place).replaceWith(document.adoptNode(fresh.querySelector(place)));
		}
	};

	const say = (text, bad) => {
		live.textContent = text;
		live.className = bad ? "bad" : "";
	};

	const refresh = () => {
		clearTimeout(timer);
		if (paused || document.hidden || marking()) {
			timer = setTimeout(refresh, period);
			return;
		}
		const request = new XMLHttpRequest();
		request.open("GET", location.href);
		request.responseType = "document";
		request.setRequestHeader("Accept", "text/html");
		request.timeout = patience;
		request.onloadend = () => {
			const fresh = request.response;
			if (fresh && fresh.getElementById("main") && fresh.querySelector("#status time")) {
				if (!paused && !marking()) replace(fresh);
				if (!paused) say("", false);
			} else {
				say(": the program doesn't answer", true);
			}
			timer = setTimeout(refresh, period);
		};
		request.send();
	};

	// A toggle event doesn't bubble, but it can be captured.
	document.addEventListener("toggle", (e) => remember(e.target.id, e.target.open), true);
	document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });

	const button = document.createElement("button");
	button.type = "button";
	button.textContent = "Pause";
	button.onclick = () => {
		paused = !paused;
		button.textContent = paused ? "Resume" : "Pause";
		button.setAttribute("aria-pressed", paused);
		say(paused ? ": paused" : "", false);
		if (!paused) refresh();
	};
	document.querySelector("header").append(button);

	unfold(document);
	timer = setTimeout(refresh, period);
})();
