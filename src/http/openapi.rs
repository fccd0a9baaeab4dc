//! The description of the API: OpenAPI 3.1, drawn from the routes themselves.

mod operations;

use rollcall_edge::openapi::complete;
use utoipa::openapi::{
    ContactBuilder, InfoBuilder, License,
    server::{Server, ServerBuilder},
};

const DESCRIPTION: &str = "\
An event-sourced user service: every change to a user is an immutable event, and everything else is read from them.

**Reading what was written.** A command answers with a `Consistency-Token`. A query that sends it back waits until it \
sees what the command did; without a token a query answers at once with what there is.

**Doing things once.** A command that is sent again with the same `Idempotency-Key` is answered again and not done \
again. `If-Match` with a user's `ETag` lets a command through only at that version.

**Refusals** are problem documents (RFC 9457) whose `type` leads to a page about them; [all of them](/problems).

**Text** is trimmed and brought into Unicode's form C. Absent and null mean the same but in a merge patch, where null \
clears. Timestamps are RFC 3339 in UTC. A member, a query parameter or a value that is not described is refused.";

/// The document as JSON.
pub fn document() -> String {
    let mut routes = rollcall_command_api::description();
    routes.merge(rollcall_query_api::description());
    routes.merge(operations::described());
    let mut license = License::new("Apache-2.0");
    license.identifier = Some("Apache-2.0".to_owned());
    routes.info = InfoBuilder::new()
        .title("Rollcall")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .contact(Some(ContactBuilder::new().name(Some("Whoever runs this service")).build()))
        .license(Some(license))
        .build();
    routes.servers = Some(vec![here()]);
    complete(&mut routes);
    routes.to_json().expect("a description is JSON")
}

fn here() -> Server {
    ServerBuilder::new().url("/").description(Some("Where this document came from")).build()
}
