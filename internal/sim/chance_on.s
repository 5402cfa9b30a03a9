//go:build simruntime

// Without a file in assembly a function without a body is an error.
