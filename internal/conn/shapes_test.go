package conn_test

import (
	"database/sql/driver"
)

// Go has no way to put a method set together at run time, so each combination is written out: those of the interfaces
// through which statements go without the others, those of the others beside the modern form of the first, and all.

func shapedConn(c *fakeConn, has uint) driver.Conn {
	switch has {
	case 0b0000000000:
		return struct{ *fakeConn }{c}
	case 0b0000000001:
		return struct {
			*fakeConn
			execerContext
		}{c, execerContext{c}}
	case 0b0000000010:
		return struct {
			*fakeConn
			execer
		}{c, execer{c}}
	case 0b0000000011:
		return struct {
			*fakeConn
			execerContext
			execer
		}{c, execerContext{c}, execer{c}}
	case 0b0000000100:
		return struct {
			*fakeConn
			queryerContext
		}{c, queryerContext{c}}
	case 0b0000000101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
		}{c, execerContext{c}, queryerContext{c}}
	case 0b0000000110:
		return struct {
			*fakeConn
			execer
			queryerContext
		}{c, execer{c}, queryerContext{c}}
	case 0b0000000111:
		return struct {
			*fakeConn
			execerContext
			execer
			queryerContext
		}{c, execerContext{c}, execer{c}, queryerContext{c}}
	case 0b0000001000:
		return struct {
			*fakeConn
			queryer
		}{c, queryer{c}}
	case 0b0000001001:
		return struct {
			*fakeConn
			execerContext
			queryer
		}{c, execerContext{c}, queryer{c}}
	case 0b0000001010:
		return struct {
			*fakeConn
			execer
			queryer
		}{c, execer{c}, queryer{c}}
	case 0b0000001011:
		return struct {
			*fakeConn
			execerContext
			execer
			queryer
		}{c, execerContext{c}, execer{c}, queryer{c}}
	case 0b0000001100:
		return struct {
			*fakeConn
			queryerContext
			queryer
		}{c, queryerContext{c}, queryer{c}}
	case 0b0000001101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			queryer
		}{c, execerContext{c}, queryerContext{c}, queryer{c}}
	case 0b0000001110:
		return struct {
			*fakeConn
			execer
			queryerContext
			queryer
		}{c, execer{c}, queryerContext{c}, queryer{c}}
	case 0b0000001111:
		return struct {
			*fakeConn
			execerContext
			execer
			queryerContext
			queryer
		}{c, execerContext{c}, execer{c}, queryerContext{c}, queryer{c}}
	case 0b0000010000:
		return struct {
			*fakeConn
			preparer
		}{c, preparer{c}}
	case 0b0000010001:
		return struct {
			*fakeConn
			execerContext
			preparer
		}{c, execerContext{c}, preparer{c}}
	case 0b0000010010:
		return struct {
			*fakeConn
			execer
			preparer
		}{c, execer{c}, preparer{c}}
	case 0b0000010011:
		return struct {
			*fakeConn
			execerContext
			execer
			preparer
		}{c, execerContext{c}, execer{c}, preparer{c}}
	case 0b0000010100:
		return struct {
			*fakeConn
			queryerContext
			preparer
		}{c, queryerContext{c}, preparer{c}}
	case 0b0000010101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
		}{c, execerContext{c}, queryerContext{c}, preparer{c}}
	case 0b0000010110:
		return struct {
			*fakeConn
			execer
			queryerContext
			preparer
		}{c, execer{c}, queryerContext{c}, preparer{c}}
	case 0b0000010111:
		return struct {
			*fakeConn
			execerContext
			execer
			queryerContext
			preparer
		}{c, execerContext{c}, execer{c}, queryerContext{c}, preparer{c}}
	case 0b0000011000:
		return struct {
			*fakeConn
			queryer
			preparer
		}{c, queryer{c}, preparer{c}}
	case 0b0000011001:
		return struct {
			*fakeConn
			execerContext
			queryer
			preparer
		}{c, execerContext{c}, queryer{c}, preparer{c}}
	case 0b0000011010:
		return struct {
			*fakeConn
			execer
			queryer
			preparer
		}{c, execer{c}, queryer{c}, preparer{c}}
	case 0b0000011011:
		return struct {
			*fakeConn
			execerContext
			execer
			queryer
			preparer
		}{c, execerContext{c}, execer{c}, queryer{c}, preparer{c}}
	case 0b0000011100:
		return struct {
			*fakeConn
			queryerContext
			queryer
			preparer
		}{c, queryerContext{c}, queryer{c}, preparer{c}}
	case 0b0000011101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			queryer
			preparer
		}{c, execerContext{c}, queryerContext{c}, queryer{c}, preparer{c}}
	case 0b0000011110:
		return struct {
			*fakeConn
			execer
			queryerContext
			queryer
			preparer
		}{c, execer{c}, queryerContext{c}, queryer{c}, preparer{c}}
	case 0b0000011111:
		return struct {
			*fakeConn
			execerContext
			execer
			queryerContext
			queryer
			preparer
		}{c, execerContext{c}, execer{c}, queryerContext{c}, queryer{c}, preparer{c}}
	case 0b0000100000:
		return struct {
			*fakeConn
			checker
		}{c, checker{c}}
	case 0b0000100001:
		return struct {
			*fakeConn
			execerContext
			checker
		}{c, execerContext{c}, checker{c}}
	case 0b0000100010:
		return struct {
			*fakeConn
			execer
			checker
		}{c, execer{c}, checker{c}}
	case 0b0000100011:
		return struct {
			*fakeConn
			execerContext
			execer
			checker
		}{c, execerContext{c}, execer{c}, checker{c}}
	case 0b0000100100:
		return struct {
			*fakeConn
			queryerContext
			checker
		}{c, queryerContext{c}, checker{c}}
	case 0b0000100101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			checker
		}{c, execerContext{c}, queryerContext{c}, checker{c}}
	case 0b0000100110:
		return struct {
			*fakeConn
			execer
			queryerContext
			checker
		}{c, execer{c}, queryerContext{c}, checker{c}}
	case 0b0000100111:
		return struct {
			*fakeConn
			execerContext
			execer
			queryerContext
			checker
		}{c, execerContext{c}, execer{c}, queryerContext{c}, checker{c}}
	case 0b0000101000:
		return struct {
			*fakeConn
			queryer
			checker
		}{c, queryer{c}, checker{c}}
	case 0b0000101001:
		return struct {
			*fakeConn
			execerContext
			queryer
			checker
		}{c, execerContext{c}, queryer{c}, checker{c}}
	case 0b0000101010:
		return struct {
			*fakeConn
			execer
			queryer
			checker
		}{c, execer{c}, queryer{c}, checker{c}}
	case 0b0000101011:
		return struct {
			*fakeConn
			execerContext
			execer
			queryer
			checker
		}{c, execerContext{c}, execer{c}, queryer{c}, checker{c}}
	case 0b0000101100:
		return struct {
			*fakeConn
			queryerContext
			queryer
			checker
		}{c, queryerContext{c}, queryer{c}, checker{c}}
	case 0b0000101101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			queryer
			checker
		}{c, execerContext{c}, queryerContext{c}, queryer{c}, checker{c}}
	case 0b0000101110:
		return struct {
			*fakeConn
			execer
			queryerContext
			queryer
			checker
		}{c, execer{c}, queryerContext{c}, queryer{c}, checker{c}}
	case 0b0000101111:
		return struct {
			*fakeConn
			execerContext
			execer
			queryerContext
			queryer
			checker
		}{c, execerContext{c}, execer{c}, queryerContext{c}, queryer{c}, checker{c}}
	case 0b0000110000:
		return struct {
			*fakeConn
			preparer
			checker
		}{c, preparer{c}, checker{c}}
	case 0b0000110001:
		return struct {
			*fakeConn
			execerContext
			preparer
			checker
		}{c, execerContext{c}, preparer{c}, checker{c}}
	case 0b0000110010:
		return struct {
			*fakeConn
			execer
			preparer
			checker
		}{c, execer{c}, preparer{c}, checker{c}}
	case 0b0000110011:
		return struct {
			*fakeConn
			execerContext
			execer
			preparer
			checker
		}{c, execerContext{c}, execer{c}, preparer{c}, checker{c}}
	case 0b0000110100:
		return struct {
			*fakeConn
			queryerContext
			preparer
			checker
		}{c, queryerContext{c}, preparer{c}, checker{c}}
	case 0b0000110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}}
	case 0b0000110110:
		return struct {
			*fakeConn
			execer
			queryerContext
			preparer
			checker
		}{c, execer{c}, queryerContext{c}, preparer{c}, checker{c}}
	case 0b0000110111:
		return struct {
			*fakeConn
			execerContext
			execer
			queryerContext
			preparer
			checker
		}{c, execerContext{c}, execer{c}, queryerContext{c}, preparer{c}, checker{c}}
	case 0b0000111000:
		return struct {
			*fakeConn
			queryer
			preparer
			checker
		}{c, queryer{c}, preparer{c}, checker{c}}
	case 0b0000111001:
		return struct {
			*fakeConn
			execerContext
			queryer
			preparer
			checker
		}{c, execerContext{c}, queryer{c}, preparer{c}, checker{c}}
	case 0b0000111010:
		return struct {
			*fakeConn
			execer
			queryer
			preparer
			checker
		}{c, execer{c}, queryer{c}, preparer{c}, checker{c}}
	case 0b0000111011:
		return struct {
			*fakeConn
			execerContext
			execer
			queryer
			preparer
			checker
		}{c, execerContext{c}, execer{c}, queryer{c}, preparer{c}, checker{c}}
	case 0b0000111100:
		return struct {
			*fakeConn
			queryerContext
			queryer
			preparer
			checker
		}{c, queryerContext{c}, queryer{c}, preparer{c}, checker{c}}
	case 0b0000111101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			queryer
			preparer
			checker
		}{c, execerContext{c}, queryerContext{c}, queryer{c}, preparer{c}, checker{c}}
	case 0b0000111110:
		return struct {
			*fakeConn
			execer
			queryerContext
			queryer
			preparer
			checker
		}{c, execer{c}, queryerContext{c}, queryer{c}, preparer{c}, checker{c}}
	case 0b0000111111:
		return struct {
			*fakeConn
			execerContext
			execer
			queryerContext
			queryer
			preparer
			checker
		}{c, execerContext{c}, execer{c}, queryerContext{c}, queryer{c}, preparer{c}, checker{c}}
	case 0b0001110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			beginner
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, beginner{c}}
	case 0b0010110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			pinger
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, pinger{c}}
	case 0b0011110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			beginner
			pinger
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, beginner{c}, pinger{c}}
	case 0b0100110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			resetter
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, resetter{c}}
	case 0b0101110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			beginner
			resetter
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, beginner{c}, resetter{c}}
	case 0b0110110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			pinger
			resetter
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, pinger{c}, resetter{c}}
	case 0b0111110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			beginner
			pinger
			resetter
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, beginner{c}, pinger{c}, resetter{c}}
	case 0b1000110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			validator
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, validator{c}}
	case 0b1001110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			beginner
			validator
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, beginner{c}, validator{c}}
	case 0b1010110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			pinger
			validator
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, pinger{c}, validator{c}}
	case 0b1011110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			beginner
			pinger
			validator
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, beginner{c}, pinger{c}, validator{c}}
	case 0b1100110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			resetter
			validator
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, resetter{c}, validator{c}}
	case 0b1101110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			beginner
			resetter
			validator
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, beginner{c}, resetter{c}, validator{c}}
	case 0b1110110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			pinger
			resetter
			validator
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, pinger{c}, resetter{c}, validator{c}}
	case 0b1111110101:
		return struct {
			*fakeConn
			execerContext
			queryerContext
			preparer
			checker
			beginner
			pinger
			resetter
			validator
		}{c, execerContext{c}, queryerContext{c}, preparer{c}, checker{c}, beginner{c}, pinger{c}, resetter{c}, validator{c}}
	case 0b1111111111:
		return struct {
			*fakeConn
			execerContext
			execer
			queryerContext
			queryer
			preparer
			checker
			beginner
			pinger
			resetter
			validator
		}{c, execerContext{c}, execer{c}, queryerContext{c}, queryer{c}, preparer{c}, checker{c}, beginner{c}, pinger{c}, resetter{c}, validator{c}}
	default:
		panic("no such shape of connection")
	}
}

// connShapes are the cases above.
func connShapes() (all []uint) {
	for has := range hasBeginTx {
		all = append(all, has)
	}
	modern := hasExecerContext | hasQueryerContext | hasPrepareContext | hasChecker
	for rest := hasBeginTx; rest < numConnShapes; rest += hasBeginTx {
		all = append(all, modern|rest)
	}
	return append(all, numConnShapes-1)
}

func shapedStmt(s *fakeStmt, has uint) driver.Stmt {
	switch has {
	case 0b0000:
		return struct{ *fakeStmt }{s}
	case 0b0001:
		return struct {
			*fakeStmt
			stmtExecContext
		}{s, stmtExecContext{s}}
	case 0b0010:
		return struct {
			*fakeStmt
			stmtQueryContext
		}{s, stmtQueryContext{s}}
	case 0b0011:
		return struct {
			*fakeStmt
			stmtExecContext
			stmtQueryContext
		}{s, stmtExecContext{s}, stmtQueryContext{s}}
	case 0b0100:
		return struct {
			*fakeStmt
			stmtChecker
		}{s, stmtChecker{s}}
	case 0b0101:
		return struct {
			*fakeStmt
			stmtExecContext
			stmtChecker
		}{s, stmtExecContext{s}, stmtChecker{s}}
	case 0b0110:
		return struct {
			*fakeStmt
			stmtQueryContext
			stmtChecker
		}{s, stmtQueryContext{s}, stmtChecker{s}}
	case 0b0111:
		return struct {
			*fakeStmt
			stmtExecContext
			stmtQueryContext
			stmtChecker
		}{s, stmtExecContext{s}, stmtQueryContext{s}, stmtChecker{s}}
	case 0b1000:
		return struct {
			*fakeStmt
			stmtConverter
		}{s, stmtConverter{s}}
	case 0b1001:
		return struct {
			*fakeStmt
			stmtExecContext
			stmtConverter
		}{s, stmtExecContext{s}, stmtConverter{s}}
	case 0b1010:
		return struct {
			*fakeStmt
			stmtQueryContext
			stmtConverter
		}{s, stmtQueryContext{s}, stmtConverter{s}}
	case 0b1011:
		return struct {
			*fakeStmt
			stmtExecContext
			stmtQueryContext
			stmtConverter
		}{s, stmtExecContext{s}, stmtQueryContext{s}, stmtConverter{s}}
	case 0b1100:
		return struct {
			*fakeStmt
			stmtChecker
			stmtConverter
		}{s, stmtChecker{s}, stmtConverter{s}}
	case 0b1101:
		return struct {
			*fakeStmt
			stmtExecContext
			stmtChecker
			stmtConverter
		}{s, stmtExecContext{s}, stmtChecker{s}, stmtConverter{s}}
	case 0b1110:
		return struct {
			*fakeStmt
			stmtQueryContext
			stmtChecker
			stmtConverter
		}{s, stmtQueryContext{s}, stmtChecker{s}, stmtConverter{s}}
	case 0b1111:
		return struct {
			*fakeStmt
			stmtExecContext
			stmtQueryContext
			stmtChecker
			stmtConverter
		}{s, stmtExecContext{s}, stmtQueryContext{s}, stmtChecker{s}, stmtConverter{s}}
	default:
		panic("no such shape of statement")
	}
}
