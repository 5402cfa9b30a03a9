//go:build (linux || darwin) && !purego && !msan

#include "textflag.h"

// func returnAddresses(buf *uintptr, n int) (found int, hash uint64)
TEXT ·returnAddresses(SB), NOSPLIT|NOFRAME, $0-32
	MOVD buf+0(FP), R0
	MOVD n+8(FP), R1
	MOVD 8(g), R2    // g.stack.hi
	SUB  $16, R2     // the highest place of a frame pointer with a return address above it
	MOVD RSP, R4
	SUB  $16, R4     // below every frame: the caller's frame pointer is at RSP-8
	MOVD R29, R5
	MOVD $0, R3
	MOVD $0, R7

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
	EOR  R7@>57, R6, R7 // rotates by 7 to the left
	ADD  $1, R3
	MOVD R5, R4
	MOVD (R5), R5
	B    next

lost:
	MOVD $-1, R3

done:
	MOVD R3, found+16(FP)
	MOVD R7, hash+24(FP)
	RET
