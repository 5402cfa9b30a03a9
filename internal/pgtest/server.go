package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startLimit is far beyond what a start takes, for machines that are far slower.
const startLimit = time.Minute

var errPortTaken = errors.New("port is taken")

// Restart starts the server again on its port, after a Stop or a Kill, and returns when it answers. One that runs is
// stopped first.
func (c *Cluster) Restart() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.errorf("closed")
	}
	if err := c.stop(); err != nil {
		return err
	}
	return c.start()
}

// Stop shuts the server down as an operator would: sessions are ended with 57P01, the rest is written to disk.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stop()
}

// LetNobodyIn begins a smart shutdown: new sessions are refused with 57P03, those that there are go on, and the server ends with the last of
// them.
func (c *Cluster) LetNobodyIn() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return c.errorf("is down")
	}
	return c.server.Signal(syscall.SIGTERM)
}

// Kill ends the server and all its backends with SIGKILL and returns when they are gone.
func (c *Cluster) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kill()
}

// Freeze stops the server and all its backends with SIGSTOP: clients still connect, and then hear nothing. Thaw goes on.
func (c *Cluster) Freeze() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return c.errorf("is down")
	}
	return freezeTree(c.server)
}

// Thaw lets a frozen server go on.
func (c *Cluster) Thaw() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return c.errorf("is down")
	}
	return thawTree(c.server)
}

// WaitReady returns when the server answers a query.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return poll(ctx, func() error {
		_, err := c.queryString(ctx, "SELECT 1")
		return err
	})
}

// start needs c.mu and a data folder.
func (c *Cluster) start() error {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return err
	}
	// What must not come along when the data folder is copied for a standby is said here, not in the configuration.
	cmd := command(filepath.Join(c.bin, "postgres"), "-D", c.data(), "-p", strconv.Itoa(c.port), "-k", c.dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("pgtest: start postgres: %w", err)
	}
	c.server = cmd.Process
	if err := c.waitStarted(cmd); err != nil {
		said := c.logFrom(info.Size())
		if strings.Contains(said, "Address already in use") {
			err = fmt.Errorf("%w: %w", errPortTaken, err)
		}
		return errors.Join(fmt.Errorf("%w\n%s", err, said), c.kill())
	}
	return nil
}

// waitStarted reads the server's state where pg_ctl reads it, which costs the server nothing.
func (c *Cluster) waitStarted(cmd *exec.Cmd) error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	return poll(ctx, func() error {
		if hasExited(c.server) {
			cancel()
			return c.errorf("ended while it started")
		}
		lines := c.pidFile()
		if len(lines) < 8 || lines[0] != strconv.Itoa(cmd.Process.Pid) || strings.TrimSpace(lines[7]) != "ready" {
			return c.errorf("is not ready")
		}
		return nil
	})
}

// stop needs c.mu.
func (c *Cluster) stop() error {
	if c.server == nil {
		return nil
	}
	if err := thawTree(c.server); err != nil {
		return err
	}
	if err := shutDown(c.server); err != nil {
		return errors.Join(err, c.kill())
	}
	server := c.server
	late := time.AfterFunc(startLimit, func() { server.Kill() })
	defer late.Stop()
	c.server = nil
	_, err := server.Wait()
	return err
}

// kill needs c.mu.
func (c *Cluster) kill() error {
	if c.server == nil {
		return nil
	}
	err := killTree(c.server)
	if _, waitErr := c.server.Wait(); err == nil {
		err = waitErr
	}
	c.server = nil
	// A killed server leaves its System V memory segment, of which a system has few, and a pid file that would stand in the
	// way of a restart once the pid is someone else's.
	if lines := c.pidFile(); len(lines) >= 7 {
		if key := strings.Fields(lines[6]); len(key) == 2 {
			exec.Command("ipcrm", "-m", key[1]).Run()
		}
	}
	if rmErr := os.Remove(c.pidFilePath()); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
		err = errors.Join(err, rmErr)
	}
	return err
}

func (c *Cluster) pidFilePath() string { return filepath.Join(c.data(), "postmaster.pid") }

// pidFile is postmaster.pid: pid, data folder, start time, port, socket folder, address, memory segment, state.
func (c *Cluster) pidFile() []string {
	text, err := os.ReadFile(c.pidFilePath())
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// logFrom is what the server wrote since, or the end of it when it was much.
func (c *Cluster) logFrom(offset int64) string {
	text, err := os.ReadFile(c.logFile())
	if err != nil {
		return err.Error()
	}
	text = text[min(int(offset), len(text)):]
	return strings.TrimSpace(string(text[max(0, len(text)-4000):]))
}

func (c *Cluster) errorf(format string, args ...any) error {
	return fmt.Errorf("pgtest: %v "+format, append([]any{c}, args...)...)
}

// poll tries until it succeeds or the context ends, and then gives the last error.
func poll(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(2 * time.Millisecond):
		}
	}
}
