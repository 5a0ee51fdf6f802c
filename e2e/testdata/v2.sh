#!/bin/sh
# Goes through IMDS v2 by hand, with nothing but curl and openssl: metadata, key, certificate request, certificate,
# token over mutual TLS, a request to a resource.
#
#	v2.sh IMDS-URL RESOURCE-URL CA-FILE TLS-VERSION FOLDER
set -eu
imds=$1 resource=$2 ca=$3 version=$4
cd "$5"

# member NAME prints a string member of the JSON on standard input.
member() { sed -n "s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p"; }

# ask PATH ARGUMENT... asks IMDS.
ask() {
	path=$1
	shift
	curl --silent --show-error --fail-with-body --noproxy '*' --header 'Metadata: true' \
		--header "x-ms-client-request-id: $(cat /proc/sys/kernel/random/uuid)" "$@" \
		"$imds/metadata/identity/$path?cred-api-version=2.0"
}

# over URL ARGUMENT... sends a request over mutual TLS with the certificate.
over() {
	url=$1
	shift
	curl --silent --show-error --fail-with-body --noproxy '*' --cacert "$ca" --cert certificate.pem --key key.pem \
		"--tlsv$version" --tls-max "$version" "$@" "$url"
}

ask getplatformmetadata > metadata.json
client=$(member clientId < metadata.json)
tenant=$(member tenantId < metadata.json)
cuid=$(sed -n 's/.*"cuId":\({[^}]*}\).*/\1/p' metadata.json)
echo "metadata: client $client"

openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem

# The mask allows PrintableString and UTF8String: the former for the CN, the latter for JSON, which does not fit the
# former.
cat > request.cnf <<CONFIG
[req]
prompt = no
string_mask = MASK:0x2002
distinguished_name = name
attributes = attributes
[name]
DC = $tenant
CN = $client
[attributes]
1.3.6.1.4.1.311.90.2.10 = $(printf %s "$cuid" | sed 's/"/\\"/g')
CONFIG
openssl req -new -config request.cnf -key key.pem -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 \
	-outform DER -out openssl.der

# issue REQUEST asks for a certificate.
issue() {
	printf '{"csr":"%s"}' "$(openssl base64 -A -in "$1")" > issue-request.json
	ask issuecredential --header 'Content-Type: application/json; charset=utf-8' --data-binary @issue-request.json
}

# The service wants RSASSA-PSS without a NULL after the hashes, where openssl writes one: it refuses that request.
if issue openssl.der > refused.json 2> refused.txt; then
	echo "the request is taken as openssl writes it" >&2
	exit 1
fi
echo "request of openssl: refused: $(cat refused.json)"

# So the signed part is taken out and signed by itself, and the three parts are put together: DER that begins with a
# SEQUENCE of two bytes of length.
set -- $(openssl asn1parse -inform DER -in openssl.der |
	sed -n '2s/ *\([0-9]*\):d=1 *hl=\([0-9]*\) *l= *\([0-9]*\) .*/\1 \2 \3/p')
tail -c "+$(($1 + 1))" openssl.der | head -c "$(($2 + $3))" > signed.der
openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sign key.pem \
	-out signature signed.der
{
	echo MD0GCSqGSIb3DQEBCjAwoA0wCwYJYIZIAWUDBAIBoRowGAYJKoZIhvcNAQEIMAsGCWCGSAFlAwQCAaIDAgEg | openssl base64 -d -A
	printf '\003\202\001\001\000' # BIT STRING of 256 bytes
	cat signature
} > end.der
length=$(($(wc -c < signed.der) + $(wc -c < end.der)))
{
	printf "\\060\\202\\$(printf %03o $((length / 256)))\\$(printf %03o $((length % 256)))"
	cat signed.der end.der
} > request.der
echo "request: $(wc -c < request.der) bytes"

issue request.der > issue.json
member certificate < issue.json | openssl base64 -d -A | openssl x509 -inform DER -out certificate.pem
endpoint=$(member mtls_authentication_endpoint < issue.json)
echo "certificate: $(openssl x509 -in certificate.pem -noout -enddate)"

over "$endpoint/$tenant/oauth2/v2.0/token" \
	--data-urlencode "client_id=$client" --data grant_type=client_credentials \
	--data-urlencode "scope=https://resource.example/.default" --data token_type=mtls_pop > token.json
echo "token: $(member token_type < token.json)"

over "$resource" --header "Authorization: mtls_pop $(member access_token < token.json)"
