//! The registry of problem types: each code with its status, its title and what a client should do about it.
//!
//! The codes are public contract. A constant and its row in [`CODES`] come from one line, so that no type can be
//! answered that is not explained.

use http::StatusCode;

/// A problem type; `code` is the last segment of its `type` URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    pub code: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    pub explanation: &'static str,
}

macro_rules! registry {
    ($($name:ident $code:literal $status:ident $title:literal $explanation:literal;)+) => {
        $(
            #[doc = $title]
            pub const $name: Code =
                Code { code: $code, status: StatusCode::$status, title: $title, explanation: $explanation };
        )+

        /// Every problem type, in order of status.
        pub static CODES: &[Code] = &[$($name),+];
    };
}

registry! {
    MALFORMED_REQUEST "malformed-request" BAD_REQUEST
        "The request cannot be read"
        "The request broke off or is not HTTP as RFC 9110 has it. Send it again, whole.";
    MALFORMED_HEADER "malformed-header" BAD_REQUEST
        "A header is malformed"
        "A header is empty, given more than once, or not of the form that `errors` names. Correct it; sending the same request again will not help.";
    MALFORMED_PATH "malformed-path" BAD_REQUEST
        "The path is malformed"
        "A segment of the path is not UTF-8 once percent-decoded, or not of the form that its place asks for, such as a UUID. `errors` names the segment; percent-encode what is no letter, digit, `-`, `.`, `_` or `~`.";
    MALFORMED_QUERY "malformed-query" BAD_REQUEST
        "The query string is malformed"
        "A query parameter is unknown, given more than once, badly percent-encoded or not of its form. `errors` names each; a plus is written %2B.";
    MALFORMED_JSON "malformed-json" BAD_REQUEST
        "The body is not JSON"
        "The body is not one JSON text in UTF-8 (RFC 8259), or a string in it holds half a surrogate pair. `detail` says at which line and column.";
    DUPLICATE_MEMBER "duplicate-member" BAD_REQUEST
        "An object has a member twice"
        "Which of two members of one name counts is anybody's guess, so neither does (RFC 7493). `errors` points to it; send each member once.";
    MALFORMED_TOKEN "malformed-token" BAD_REQUEST
        "The consistency token is malformed"
        "A Consistency-Token is not one that this service gave, was cut, or two of one request are of different logs. Send tokens back unchanged, or none.";
    UNAUTHORIZED "unauthorized" UNAUTHORIZED
        "The caller is not known"
        "The request has no valid bearer token; `detail` and WWW-Authenticate say what is wrong with the one that was sent. Get one and send it in Authorization.";
    FORBIDDEN "forbidden" FORBIDDEN
        "The caller may not do this"
        "The caller is known but lacks the scope that the route asks for (WWW-Authenticate names it), or sent a Tenant or Actor other than its token's, or a web page of another origin sent the request.";
    NOT_FOUND "not-found" NOT_FOUND
        "There is no such resource"
        "Nothing stands at this path for the caller's tenant. What other tenants have is not revealed. Check the id and the tenant; a user that was just created is visible to a query that sends the command's Consistency-Token.";
    METHOD_NOT_ALLOWED "method-not-allowed" METHOD_NOT_ALLOWED
        "The resource does not take this method"
        "The header Allow lists the methods that the resource takes.";
    REQUEST_TIMEOUT "request-timeout" REQUEST_TIMEOUT
        "The body did not come in time"
        "The body stopped coming before its end. Nothing was done: send the request again, whole.";
    ALREADY_EXISTS "already-exists" CONFLICT
        "The id is taken"
        "The tenant already has an aggregate of the id that the request chose. Choose another, or use the one that is there.";
    CONFLICT "conflict" CONFLICT
        "The command does not fit the current state"
        "The state does not allow the command, or others kept changing it meanwhile. Read it again and decide anew.";
    EMAIL_TAKEN "email-taken" CONFLICT
        "The email address is taken"
        "Another user of the tenant has the email address, in whatever case. Find it with POST /api/v1/users/query, or use another address.";
    EMAIL_DIFFERS "email-differs" CONFLICT
        "The user has another email address"
        "The address to verify is not the one that the user has now, so what was verified is out of date. Verify the present one.";
    EXTERNAL_ID_TAKEN "external-id-taken" CONFLICT
        "The external id is taken"
        "Another user of the tenant has the external id of that source. Find it with POST /api/v1/users/query, or take the id from that user first.";
    USER_DEACTIVATED "user-deactivated" CONFLICT
        "The user is deactivated"
        "A deactivated user takes only reactivation, erasure, and corrections by a caller with the scope users:rectify. Reactivate it first, or leave it.";
    GONE "gone" GONE
        "The resource is erased"
        "The subject was erased for good. Its id will not be used again: forget it as well.";
    PRECONDITION_FAILED "precondition-failed" PRECONDITION_FAILED
        "The version is not the one named in If-Match"
        "The resource changed since its ETag was read. Read it again and decide anew.";
    BODY_TOO_LARGE "body-too-large" PAYLOAD_TOO_LARGE
        "The body is too large"
        "The body is longer than the route takes; `detail` has the bound. Split it.";
    URI_TOO_LONG "uri-too-long" URI_TOO_LONG
        "The URL is too long"
        "The path and the query string together are longer than 8,192 bytes. POST /api/v1/users/query takes a filter in its body.";
    UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE
        "The body is of a media type or a coding that is not taken here"
        "Send JSON in UTF-8 with Content-Type application/json (or another +json type), as it is or with Content-Encoding gzip or zstd.";
    MISDIRECTED_HOST "misdirected-host" MISDIRECTED_REQUEST
        "The host is not a loopback name"
        "Without authentication the service answers only to localhost, *.localhost, 127.0.0.0/8 and [::1], so that a web page elsewhere cannot reach it by a name of its own (DNS rebinding).";
    INVALID_MEMBERS "invalid-members" UNPROCESSABLE_ENTITY
        "The members of the body are not as they must be"
        "The body is JSON, but members are missing, unknown or not of their form. `errors` lists them all, up to 100.";
    IDEMPOTENCY_KEY_REUSED "idempotency-key-reused" UNPROCESSABLE_ENTITY
        "The idempotency key was used for another request"
        "A request with this Idempotency-Key but another method, path, If-Match or body has succeeded. Use a key for one request only.";
    TOO_MANY_REQUESTS "too-many-requests" TOO_MANY_REQUESTS
        "Too many requests"
        "The tenant sends more than its share, in which a batch counts as as many requests as it has commands. Come back after Retry-After; RateLimit-Policy says what the share is.";
    INTERNAL "internal" INTERNAL_SERVER_ERROR
        "The service failed"
        "An error that is not the caller's. It is logged here. A command may or may not have happened: repeat it with the same Idempotency-Key.";
    OVERLOADED "overloaded" SERVICE_UNAVAILABLE
        "The service is overloaded"
        "The service has as much at work as it takes, and nothing was done. Come back after Retry-After.";
    UNAVAILABLE "unavailable" SERVICE_UNAVAILABLE
        "The service cannot answer now"
        "Something that the service needs is away. A command may or may not have happened: repeat it with the same Idempotency-Key after Retry-After.";
    PROJECTION_BEHIND "projection-behind" SERVICE_UNAVAILABLE
        "The read model has not reached the token yet"
        "The change that the Consistency-Token names is stored, but not yet visible here. Ask again after Retry-After, or without the token to read what there is.";
    PROJECTION_PARKED "projection-parked" SERVICE_UNAVAILABLE
        "The read model of this resource is halted"
        "An event of this stream could not be applied and waits for an operator; the log is unharmed. Asking again soon will not help.";
    LOG_RESTORED "log-restored" SERVICE_UNAVAILABLE
        "The log was restored to an earlier point"
        "Commands are refused until an operator adopts the restored log, or brings the whole log back and starts the service again; queries are answered. Asking again soon will not help.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_slugs_in_order_of_status() {
        for (i, code) in CODES.iter().enumerate() {
            assert!(code.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", code.code);
            assert!(CODES[..i].iter().all(|other| other.code != code.code), "{} stands twice", code.code);
            assert!(i == 0 || CODES[i - 1].status <= code.status, "{} is out of order", code.code);
            assert!(!code.title.ends_with('.') && code.explanation.ends_with('.'), "{}", code.code);
        }
    }

    #[test]
    fn the_contract_of_codes_and_statuses_stands() {
        let contract: Vec<_> = CODES.iter().map(|code| (code.code, code.status.as_u16())).collect();
        assert_eq!(
            contract,
            [
                ("malformed-request", 400),
                ("malformed-header", 400),
                ("malformed-path", 400),
                ("malformed-query", 400),
                ("malformed-json", 400),
                ("duplicate-member", 400),
                ("malformed-token", 400),
                ("unauthorized", 401),
                ("forbidden", 403),
                ("not-found", 404),
                ("method-not-allowed", 405),
                ("request-timeout", 408),
                ("already-exists", 409),
                ("conflict", 409),
                ("email-taken", 409),
                ("email-differs", 409),
                ("external-id-taken", 409),
                ("user-deactivated", 409),
                ("gone", 410),
                ("precondition-failed", 412),
                ("body-too-large", 413),
                ("uri-too-long", 414),
                ("unsupported-media-type", 415),
                ("misdirected-host", 421),
                ("invalid-members", 422),
                ("idempotency-key-reused", 422),
                ("too-many-requests", 429),
                ("internal", 500),
                ("overloaded", 503),
                ("unavailable", 503),
                ("projection-behind", 503),
                ("projection-parked", 503),
                ("log-restored", 503),
            ]
        );
    }
}
