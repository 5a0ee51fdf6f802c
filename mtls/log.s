// This file is empty on purpose: the compiler accepts functions without a body (see log.go) only in a package that has
// an assembly file.
