//go:build (linux || darwin) && !purego && !msan

#include "textflag.h"

// func returnAddresses(buf *uintptr, n int) int
TEXT ·returnAddresses(SB), NOSPLIT|NOFRAME, $0-24
	MOVD buf+0(FP), R0
	MOVD n+8(FP), R1
	MOVD 8(g), R2    // g.stack.hi
	SUB  $16, R2     // the highest place of a frame pointer with a return address above it
	MOVD RSP, R4
	SUB  $16, R4     // below every frame: the caller's frame pointer is at RSP-8
	MOVD R29, R5
	MOVD $0, R3

next:
	CMP  R1, R3
	BGE  done
	CBZ  R5, done
	CMP  R4, R5
	BLS  lost
	CMP  R2, R5
	BHI  lost
	MOVD 8(R5), R6
	MOVD R6, (R0)(R3<<3)
	ADD  $1, R3
	MOVD R5, R4
	MOVD (R5), R5
	B    next

lost:
	MOVD $-1, R3

done:
	MOVD R3, ret+16(FP)
	RET
