//go:build (linux || darwin) && !purego && !msan

#include "textflag.h"

// func returnAddresses(buf *uintptr, n int) (found int, hash uint64)
TEXT ·returnAddresses(SB), NOSPLIT|NOFRAME, $0-32
	MOVQ buf+0(FP), DI
	MOVQ n+8(FP), SI
	MOVQ (TLS), DX
	MOVQ 8(DX), DX  // g.stack.hi
	SUBQ $16, DX    // the highest place of a frame pointer with a return address above it
	MOVQ SP, R8     // below every frame
	MOVQ BP, CX
	XORQ AX, AX
	XORQ BX, BX

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
	ROLQ  $7, BX
	XORQ  R9, BX
	INCQ  AX
	MOVQ  CX, R8
	MOVQ  (CX), CX
	JMP   next

lost:
	MOVQ $-1, AX

done:
	MOVQ AX, found+16(FP)
	MOVQ BX, hash+24(FP)
	RET
