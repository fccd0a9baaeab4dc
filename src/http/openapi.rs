//! The description of the API: OpenAPI 3.1, drawn from the routes themselves.

use rollcall_edge::openapi::add_schemas;
use utoipa::openapi::{
    InfoBuilder, License, OpenApi,
    security::{Http, HttpAuthScheme, SecurityScheme},
};

/// The document as JSON.
pub fn document(mut routes: OpenApi) -> String {
    add_schemas(&mut routes);
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    routes.info = InfoBuilder::new()
        .title("Rollcall")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "An event-sourced user service. Commands answer with a `Consistency-Token`; a query that sends it back sees \
             what they did. Refusals are problem documents (RFC 9457).",
        ))
        .license(Some(license))
        .build();
    let bearer = Http::builder().scheme(HttpAuthScheme::Bearer).build();
    routes.components.get_or_insert_default().add_security_scheme("scopes", SecurityScheme::Http(bearer));
    routes.to_json().expect("a description is JSON")
}
