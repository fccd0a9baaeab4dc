//! Headers and query parameters that many routes share: `params(CallerHeaders, PageParams)`.

use utoipa::IntoParams;
use uuid::Uuid;

/// Who calls, in open mode.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct CallerHeaders {
    /// With `auth.mode = open` the tenant; `default` where it is absent. With `jwt` it may only repeat the token's.
    #[param(rename = "Tenant", required = false, pattern = "^[a-z0-9-]{1,63}$", example = "acme")]
    pub tenant: String,
    /// With `auth.mode = open` the subject who acts, as an opaque id; `anonymous` where it is absent. With `jwt` it may
    /// only repeat the token's `sub`.
    #[param(rename = "Actor", required = false, pattern = "^[A-Za-z0-9._:|-]{1,128}$", example = "svc:crm")]
    pub actor: String,
}

/// Which user.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub struct UserPath {
    /// The user's id.
    #[param(example = "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887")]
    pub id: Uuid,
}

/// What ties a request to others.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct MetadataHeaders {
    /// Kept with every event that the request causes; the trace id or a new id where it is absent.
    #[param(
        rename = "Correlation-Id",
        required = false,
        pattern = "^[A-Za-z0-9._-]{1,128}$",
        example = "order-4711"
    )]
    pub correlation_id: String,
    /// The id of the message that caused the request.
    #[param(
        rename = "Causation-Id",
        required = false,
        pattern = "^[A-Za-z0-9._-]{1,128}$",
        example = "0193b3f2-5a1e-7c44-9d0a-2b8f6f1c7e11"
    )]
    pub causation_id: String,
    /// W3C Trace Context. One that is malformed is passed over.
    #[param(
        rename = "traceparent",
        required = false,
        example = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    )]
    pub traceparent: String,
}

/// For commands: once, and on which version.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct CommandHeaders {
    /// A name for this request: repeated within 24 hours with the same key, it is answered again and not done again.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        min_length = 1,
        max_length = 255,
        pattern = r#"^[!#-~][!-~]*$"#,
        example = "import-7-row-12"
    )]
    pub idempotency_key: String,
    /// `*`, or the ETag that the command is meant for; 412 where the version is another. Several may stand apart by
    /// commas.
    #[param(rename = "If-Match", required = false, pattern = r#"^(\*|"[0-9]+")$"#, example = "\"17\"")]
    pub if_match: String,
}

/// For commands on no one existing user: once.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyHeader {
    /// A name for this request: repeated within 24 hours with the same key, it is answered again and not done again.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        min_length = 1,
        max_length = 255,
        pattern = r#"^[!#-~][!-~]*$"#,
        example = "import-7-row-12"
    )]
    pub idempotency_key: String,
}

/// For queries: not older than this.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct TokenHeader {
    /// Tokens of earlier answers of this service, apart by commas; the query waits until it sees what they saw. The
    /// header may repeat.
    #[param(rename = "Consistency-Token", required = false, pattern = r"^ct1\.[A-Za-z0-9_-]{22,}$")]
    pub consistency_token: String,
}

/// For listings.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// How many items at most.
    #[param(required = false, minimum = 1, maximum = 1000, default = 50, example = 100)]
    pub page_size: u32,
    /// `next_page_token` of the page before; it belongs to this listing.
    #[param(required = false, pattern = "^[A-Za-z0-9_-]{2,2048}$")]
    pub page_token: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use utoipa::openapi::path::Parameter;

    fn parameters<P: IntoParams>() -> Vec<(String, Value, Value)> {
        let read = |parameter: Parameter| {
            let json = serde_json::to_value(parameter).unwrap();
            (json["name"].as_str().unwrap().to_owned(), json["in"].clone(), json["required"].clone())
        };
        P::into_params(|| None).into_iter().map(read).collect()
    }

    #[test]
    fn headers_and_parameters_are_named_as_they_are_sent() {
        let header = |name: &str| (name.to_owned(), json!("header"), json!(false));
        assert_eq!(parameters::<CallerHeaders>(), [header("Tenant"), header("Actor")]);
        assert_eq!(
            parameters::<MetadataHeaders>(),
            [header("Correlation-Id"), header("Causation-Id"), header("traceparent")]
        );
        assert_eq!(parameters::<CommandHeaders>(), [header("Idempotency-Key"), header("If-Match")]);
        assert_eq!(parameters::<TokenHeader>(), [header("Consistency-Token")]);
        let query = |name: &str| (name.to_owned(), json!("query"), json!(false));
        assert_eq!(parameters::<PageParams>(), [query("page_size"), query("page_token")]);
    }
}
