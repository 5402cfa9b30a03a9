// This file lets usage.go declare a function without a body.
