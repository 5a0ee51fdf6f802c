package azmtls

import (
	"errors"
	"strings"
	"unicode"
)

// resourceOf returns the resource of a scope: the scope itself, without "/.default".
func resourceOf(scope string) string { return strings.TrimSuffix(scope, "/.default") }

// checkResource refuses what cannot be the resource of one scope.
func checkResource(resource string) error {
	switch {
	case resource == "":
		return errors.New(`the scope names no resource; it should be like "https://vault.azure.net/.default"`)
	case strings.ContainsFunc(resource, unicode.IsSpace):
		return errors.New("the scope contains white space; GetToken takes exactly one scope")
	}
	return nil
}
