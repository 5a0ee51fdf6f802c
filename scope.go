package azmtls

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// errNotMade is the error of calls to nil, and to a credential that nobody made.
var errNotMade = errors.New("the credential was not made by NewImdsV2MtlsCredential")

// made reports whether the credential can be used.
func (c *ImdsV2MtlsCredential) made() bool { return c != nil && c.tokens != nil }

// check refuses a call for a token that cannot work, before any network call.
func (c *ImdsV2MtlsCredential) check(ctx context.Context, opts *policy.TokenRequestOptions) error {
	if err := c.callable(ctx); err != nil {
		return err
	}
	if len(opts.Scopes) != 1 {
		return fmt.Errorf("GetToken takes exactly one scope, got %d", len(opts.Scopes))
	}
	return nil
}

// callable refuses any call that cannot work.
func (c *ImdsV2MtlsCredential) callable(ctx context.Context) error {
	switch {
	case !c.made():
		return errNotMade
	case ctx == nil:
		return errors.New("the call needs a context, got nil")
	}
	return nil
}

// resourceOf returns the resource of a scope: the scope itself, without "/.default". A slash before that is the
// resource's, as in MSAL: "https://vault.azure.net//.default" is the scope of "https://vault.azure.net/".
func resourceOf(scope string) string { return strings.TrimSuffix(scope, "/.default") }

// checkResource refuses what cannot be the resource of one scope.
func checkResource(resource string) error {
	switch {
	case resource == "", resource == ".default":
		return errors.New(`the scope names no resource; it should be like "https://vault.azure.net/.default"`)
	case strings.ContainsFunc(resource, unicode.IsSpace):
		return errors.New("the scope contains white space; GetToken takes exactly one scope")
	}
	return nil
}
