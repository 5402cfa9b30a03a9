package single
