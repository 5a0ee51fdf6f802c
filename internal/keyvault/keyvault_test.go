package keyvault_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/azmtls/azmtls/internal/keyvault"
	"github.com/stretchr/testify/require"
)

// Only hosts of the service, of every cloud, get the header: others may refuse what they do not know. A name that
// merely looks like one is not of the service.
func TestIsHost(t *testing.T) {
	for host, want := range map[string]bool{
		"name.vault.azure.net":                       true,
		"name.managedhsm.azure.net":                  true,
		"name.vault.usgovcloudapi.net":               true,
		"name.managedhsm.usgovcloudapi.net":          true,
		"name.vault.azure.cn":                        true,
		"name.managedhsm.azure.cn":                   true,
		"name.vault.microsoftazure.de":               true,
		"name.vault.sovcloud-api.fr":                 true,
		"name.managedhsm.sovcloud-api.de":            true,
		"name.vault.cloudapi.eaglex.ic.gov":          true,
		"name.managedhsm.cloudapi.microsoft.scloud.": true,
		"n-1.vault.local.azurestack.external":        true,
		"NAME.Vault.Azure.NET":                       true,
		"name.vault.azure.net.":                      true,
		"NAME.MANAGEDHSM.AZURE.NET.":                 true,
		"name.vault.internal":                        true,
		"vault.azure.net":                            false,
		"vault.azure.net.":                           false,
		"namevault.azure.net":                        false,
		".vault.azure.net":                           false,
		".vault.azure.net.":                          false,
		"..vault.azure.net":                          false,
		"managedhsm.azure.net":                       false,
		"name.vaults.azure.net":                      false,
		"name.managedhsm":                            false,
		"name.vault":                                 false,
		"name.vault.":                                false,
		"name.vault..net":                            false,
		"name.managedhsm..":                          false,
		"a.name.vault.azure.net":                     false,
		"vault.azure.net.example.com":                false,
		"name.vault.azure.net..":                     false,
		"name.vault.azure.net:443":                   false, // of a URL comes its Hostname
		"name.blob.core.windows.net":                 false,
		"management.azure.com":                       false,
		"name.privatelink.vaultcore.azure.net":       false,
		"127.0.0.1":                                  false,
		"":                                           false,
	} {
		require.Equal(t, want, keyvault.IsHost(host), host)
	}
}

// A refusal is a 401 in JSON to a request that asked for it by the header. Any other answer is of another matter,
// whatever its body says.
func TestMayRefuse(t *testing.T) {
	asked := http.Header{}
	asked.Set("x-ms-tokenboundauth", "true")
	for name, test := range map[string]struct {
		request   http.Header
		status    int
		mediaType string
		want      bool
	}{
		"refusal":             {asked, 401, "application/json", true},
		"request not bound":   {http.Header{}, 401, "application/json", false},
		"no headers":          {nil, 401, "application/json", false},
		"header that is void": {http.Header{"X-Ms-Tokenboundauth": {""}}, 401, "application/json", false},
		"400":                 {asked, 400, "application/json", false},
		"403":                 {asked, 403, "application/json", false},
		"200":                 {asked, 200, "application/json", false},
		"500":                 {asked, 500, "application/json", false},
		"HTML":                {asked, 401, "text/html", false},
		"other JSON":          {asked, 401, "application/problem+json", false},
		"no type":             {asked, 401, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, keyvault.MayRefuse(test.request, test.status, test.mediaType))
		})
	}
}

// The code counts as the whole value of error.code or of the code of an innererror. Everywhere else it may be a user's
// word: Key Vault echoes names and values, and a user who could write the code there could have bindings evicted.
func TestRefuses(t *testing.T) {
	const code = "MtlsCnfClaimRequestDataValidationFailed"
	for name, test := range map[string]struct {
		body string
		want bool
	}{
		"error.code":            {`{"error":{"code":"CODE","message":"m"}}`, true},
		"innererror":            {`{"error":{"code":"Unauthorized","message":"m","innererror":{"code":"CODE"}}}`, true},
		"innererror of that":    {`{"error":{"code":"x","innererror":{"innererror":{"code":"CODE"}}}}`, true},
		"no outer code":         {`{"error":{"innererror":{"code":"CODE"}}}`, true},
		"outer code no string":  {`{"error":{"code":5,"innererror":{"code":"CODE"}}}`, true},
		"beside other members":  {`{"id":1,"error":{"target":["x"],"code":"CODE","details":[{"code":"y"}]}}`, true},
		"message":               {`{"error":{"code":"Unauthorized","message":"CODE"}}`, false},
		"message of innererror": {`{"error":{"code":"x","innererror":{"code":"y","message":"CODE"}}}`, false},
		"name of a member":      {`{"error":{"code":"Unauthorized","CODE":"code"}}`, false},
		"name of all":           {`{"CODE":{"code":"Unauthorized"}}`, false},
		"another member":        {`{"error":{"code":"Unauthorized"},"secret":{"code":"CODE"}}`, false},
		"beside error":          {`{"code":"CODE"}`, false},
		"innererror by itself":  {`{"innererror":{"code":"CODE"}}`, false},
		"innererror beside":     {`{"error":{"code":"Unauthorized"},"innererror":{"code":"CODE"}}`, false},
		"code in a member":      {`{"error":{"details":{"code":"CODE"}}}`, false},
		"code in code":          {`{"error":{"code":{"code":"CODE"}}}`, false},
		"error in error":        {`{"error":{"error":{"code":"CODE"}}}`, false},
		"longer behind":         {`{"error":{"code":"CODE2"}}`, false},
		"longer before":         {`{"error":{"code":"NotCODE"}}`, false},
		"blank around":          {`{"error":{"code":" CODE "}}`, false},
		"case of the code":      {`{"error":{"code":"mtlscnfclaimrequestdatavalidationfailed"}}`, false},
		"case of error":         {`{"Error":{"code":"CODE"}}`, false},
		"case of code's name":   {`{"error":{"Code":"CODE"}}`, false},
		"case of innererror":    {`{"error":{"innerError":{"code":"CODE"}}}`, false},
		"trailing data":         {`{"error":{"code":"CODE"}} x`, false},
		"trailing object":       {`{"error":{"code":"Unauthorized"}}{"error":{"code":"CODE"}}`, false},
		"cut short":             {`{"error":{"code":"CODE"}`, false},
		"array":                 {`[{"error":{"code":"CODE"}}]`, false},
		"array of errors":       {`{"error":[{"code":"CODE"}]}`, false},
		"array of codes":        {`{"error":{"code":["CODE"]}}`, false},
		"details":               {`{"error":{"code":"Unauthorized","details":[{"code":"CODE"}]}}`, false},
		"innererror an array":   {`{"error":{"code":"Unauthorized","innererror":[{"code":"CODE"}]}}`, false},
		"error a string":        {`{"error":"CODE"}`, false},
		"error null":            {`{"error":null}`, false},
		"a string":              {`"CODE"`, false},
		"null":                  {`null`, false},
		"not JSON":              {`CODE`, false},
		"empty":                 {``, false},
		"another code":          {`{"error":{"code":"Unauthorized","message":"AKV10000"}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, keyvault.Refuses([]byte(strings.ReplaceAll(test.body, "CODE", code))))
		})
	}
}

// A body that nests without end costs a bounded effort.
func TestRefusesEndsInTheDepth(t *testing.T) {
	nested := func(depth int) []byte {
		return []byte(`{"error":` + strings.Repeat(`{"innererror":`, depth) +
			`{"code":"MtlsCnfClaimRequestDataValidationFailed"}` + strings.Repeat("}", depth+1))
	}
	require.True(t, keyvault.Refuses(nested(9)))
	require.False(t, keyvault.Refuses(nested(10)))
	require.False(t, keyvault.Refuses(nested(5000)))
}
