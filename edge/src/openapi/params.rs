//! Headers and query parameters that many routes share: `params(CallerHeaders, PageParams)`.

use utoipa::IntoParams;

/// Who calls, in open mode.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct CallerHeaders {
    /// The tenant; `default` where it is absent. Only read in open mode.
    #[param(rename = "Tenant", required = false, pattern = "^[a-z0-9-]{1,63}$", example = "acme")]
    pub tenant: Option<String>,
    /// The subject who acts, as an opaque id; `anonymous` where it is absent. Only read in open mode.
    #[param(rename = "Actor", required = false, pattern = "^[A-Za-z0-9._:|-]{1,128}$", example = "svc:crm")]
    pub actor: Option<String>,
}

/// What ties a request to others.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct MetadataHeaders {
    /// Kept with every event that the request causes; the trace id or a new id where it is absent.
    #[param(rename = "Correlation-Id", required = false, pattern = "^[A-Za-z0-9._-]{1,128}$")]
    pub correlation_id: Option<String>,
    /// The id of the message that caused the request.
    #[param(rename = "Causation-Id", required = false, pattern = "^[A-Za-z0-9._-]{1,128}$")]
    pub causation_id: Option<String>,
    /// W3C Trace Context.
    #[param(rename = "traceparent", required = false)]
    pub traceparent: Option<String>,
}

/// For commands: once, and on which version.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct CommandHeaders {
    /// A name for this request: repeated within 24 hours with the same key, it is answered again and not done again.
    #[param(rename = "Idempotency-Key", required = false, max_length = 255)]
    pub idempotency_key: Option<String>,
    /// `*`, or the ETag that the command is meant for; 412 where the version is another.
    #[param(rename = "If-Match", required = false, example = "\"17\"")]
    pub if_match: Option<String>,
}

/// For commands on no one existing user: once.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IdempotencyHeader {
    /// A name for this request: repeated within 24 hours with the same key, it is answered again and not done again.
    #[param(rename = "Idempotency-Key", required = false, max_length = 255)]
    pub idempotency_key: Option<String>,
}

/// For queries: not older than this.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct TokenHeader {
    /// Tokens of earlier answers; the query waits until it sees what they saw. May repeat.
    #[param(rename = "Consistency-Token", required = false)]
    pub consistency_token: Option<String>,
}

/// For listings.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// How many items at most.
    #[param(required = false, minimum = 1, maximum = 1000, default = 50)]
    pub page_size: Option<u32>,
    /// `next_page_token` of the page before.
    #[param(required = false)]
    pub page_token: Option<String>,
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
