package tpmstore

// Store is an [mtls.Store] in a folder, shared by all processes of the user. It keeps bindings whose key is one of
// [Keys]: private keys in software are never written. There is one file for each alias, replaced at once and as a
// whole. Changes are made under a lock; when that is not free within 300 ms they are not made, and the error says so.
//
// The folder is azmtls, of mode 0700, and its files have 0600. A folder that others may use, that another user owns or
// that is a symbolic link is refused; such a file, a damaged one, or one of a newer version is set aside under the
// extension .bad.
type Store struct {
	// Folder is where the folder azmtls lies or is made. Empty is the first of $STATE_DIRECTORY (its first entry),
	// $XDG_STATE_HOME and ~/.local/state.
	Folder string
}
