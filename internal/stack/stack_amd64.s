//go:build (linux || darwin) && !purego && !msan

#include "textflag.h"

// func returnAddresses(buf *uintptr, n int) int
TEXT ·returnAddresses(SB), NOSPLIT|NOFRAME, $0-24
	MOVQ buf+0(FP), DI
	MOVQ n+8(FP), SI
	MOVQ (TLS), DX
	MOVQ 8(DX), DX  // g.stack.hi
	SUBQ $16, DX    // the highest place of a frame pointer with a return address above it
	MOVQ SP, R8     // below every frame
	MOVQ BP, CX
	XORQ AX, AX

next:
	CMPQ  AX, SI
	JGE   done
	TESTQ CX, CX
	JEQ   done
	CMPQ  CX, R8
	JLS   lost
	CMPQ  CX, DX
	JHI   lost
	MOVQ  8(CX), R9
	MOVQ  R9, (DI)(AX*8)
	INCQ  AX
	MOVQ  CX, R8
	MOVQ  (CX), CX
	JMP   next

lost:
	MOVQ $-1, AX

done:
	MOVQ AX, ret+16(FP)
	RET
