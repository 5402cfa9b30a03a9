//go:build cgo

// Package callbacks calls Go from C code that keeps no frame pointers.
package callbacks

// #cgo CFLAGS: -O2 -fomit-frame-pointer
// #cgo LDFLAGS: -lpthread
// #include <stdint.h>
// void call(uintptr_t handle, uintptr_t frame);
// int call_on_thread(uintptr_t handle, uintptr_t frame, int times);
import "C"

import (
	"runtime/cgo"
	"syscall"
)

//export callback
func callback(handle C.uintptr_t) { cgo.Handle(handle).Value().(func())() }

// Call has C call f, with frame in the register where Go has its frame pointer.
func Call(f func(), frame uintptr) {
	handle := cgo.NewHandle(f)
	defer handle.Delete()
	C.call(C.uintptr_t(handle), C.uintptr_t(frame))
}

// CallOnThread has C call f some times from a thread of its own.
func CallOnThread(f func(), frame uintptr, times int) error {
	handle := cgo.NewHandle(f)
	defer handle.Delete()
	if err := C.call_on_thread(C.uintptr_t(handle), C.uintptr_t(frame), C.int(times)); err != 0 {
		return syscall.Errno(err)
	}
	return nil
}
