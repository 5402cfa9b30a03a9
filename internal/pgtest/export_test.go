package pgtest

var (
	FindBinaries  = findBinaries
	ErrNoPostgres = errNoPostgres
)
