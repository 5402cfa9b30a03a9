#include <pthread.h>
#include <stdint.h>
#include "_cgo_export.h"

// call has the register that Go keeps its frame pointer in hold something else when it calls back.
__attribute__((noinline)) void call(uintptr_t handle, uintptr_t frame) {
#if defined(__x86_64__)
	register uintptr_t kept asm("rbp") = frame;
#elif defined(__aarch64__)
	register uintptr_t kept asm("x29") = frame;
#else
	uintptr_t kept = frame;
#endif
	asm volatile("" : "+r"(kept));
	callback(handle);
	asm volatile("" : "+r"(kept));
}

struct work {
	uintptr_t handle, frame;
	int times;
};

static void *run(void *arg) {
	struct work *w = arg;
	for (int i = 0; i < w->times; i++) {
		call(w->handle, w->frame);
	}
	return 0;
}

// call_on_thread does so on a thread that Go didn't make, some times.
int call_on_thread(uintptr_t handle, uintptr_t frame, int times) {
	struct work w = {handle, frame, times};
	pthread_t thread;
	int err = pthread_create(&thread, 0, run, &w);
	return err ? err : pthread_join(thread, 0);
}
