package entra

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// Token is a token as Entra issued it.
type Token struct {
	Value     string
	ExpiresOn time.Time
	RefreshOn time.Time // as Entra advised, else half-way
}

// ParseToken reads the answer to a request. A token of another type than the one asked for is refused: it would be a silent
// downgrade.
func ParseToken(resp *http.Response, asked string, now time.Time) (Token, error) {
	body, err := runtime.Payload(resp)
	if err != nil {
		return Token{}, fmt.Errorf("reading the answer of the token endpoint: %w", err)
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   number `json:"expires_in"`
		RefreshIn   number `json:"refresh_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Token{}, errors.New("the answer of the token endpoint is malformed: it is not the JSON that was expected") // err could quote the token
	}
	switch {
	case answer.TokenType == "":
		return Token{}, fmt.Errorf("the answer of the token endpoint names no token_type, %s was asked for", asked)
	case !strings.EqualFold(answer.TokenType, asked):
		return Token{}, fmt.Errorf("the token endpoint answered with a token of type %.20q where %s was asked for; a downgrade is refused", answer.TokenType, asked)
	case answer.AccessToken == "":
		return Token{}, errors.New("the answer of the token endpoint has no access_token")
	case answer.ExpiresIn <= 0:
		return Token{}, errors.New("the answer of the token endpoint has no expires_in")
	}
	lifetime, refresh := answer.ExpiresIn.seconds(), answer.RefreshIn.seconds()
	if refresh <= 0 || refresh >= lifetime {
		refresh = lifetime / 2 // as MSAL does without advice
	}
	now = now.UTC()
	return Token{Value: answer.AccessToken, ExpiresOn: now.Add(lifetime), RefreshOn: now.Add(refresh)}, nil
}

// number is a count of seconds that Entra writes as a JSON number, and some deployments as a string. What is neither counts as
// absent: a refresh_in that makes no sense is no reason to throw a token away.
type number float64

func (n *number) UnmarshalJSON(data []byte) error {
	var value json.Number // takes strings as well
	if json.Unmarshal(data, &value) == nil {
		seconds, _ := value.Float64() // infinite if it is too large
		*n = number(seconds)
	}
	return nil
}

// maxLifetime bounds what a nonsensical expires_in can do to time arithmetic.
const maxLifetime = 365 * 24 * time.Hour

func (n number) seconds() time.Duration {
	if float64(n) > maxLifetime.Seconds() {
		return maxLifetime
	}
	return time.Duration(float64(n) * float64(time.Second))
}
