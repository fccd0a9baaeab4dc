//! The pages and texts about problem types.

use std::fmt::Write;

use super::example;
use crate::problem::{CODES, Code, MEDIA_TYPE};

/// The page's own style and nothing else.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "\
:root { color-scheme: light dark }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem }
code, pre { font-family: ui-monospace, monospace; font-size: .92em }
pre { padding: .8rem 1rem; border: 1px solid #8886; border-radius: .4rem; overflow-x: auto }
dt { margin-top: 1rem }
dd { margin: 0 0 0 1.5rem }
.status { opacity: .75; margin-top: 0 }";

const EVERY_TEXT: &str = "\
Refusals are problem documents (RFC 9457). `code` is stable and for programs; `detail` is about the one request and \
for people; `errors`, where it is there, names each place by JSON pointer (of the body) or by parameter.";

pub fn one_text(code: &Code) -> String {
    format!(
        "{} ({})\n\n{}\n\n{}\n\nFor example:\n\nContent-Type: {MEDIA_TYPE}\n\n{}\n",
        code.code,
        code.status,
        code.title,
        code.explanation,
        document(code)
    )
}

pub fn list_text() -> String {
    let mut text = format!("{EVERY_TEXT}\nEach code has a page: /problems/{{code}}\n\n");
    for code in CODES {
        writeln!(text, "{} ({})\n    {}\n    {}\n", code.code, code.status, code.title, code.explanation)
            .expect("a string takes any text");
    }
    text
}

pub fn one(code: &Code) -> String {
    let body = format!(
        "<h1>{title}</h1>\n<p class=\"status\"><code>{name}</code> · {status}</p>\n\
         <h2>What it means and what to do</h2>\n<p>{explanation}</p>\n\
         <h2>An example</h2>\n<pre>Content-Type: {MEDIA_TYPE}\n\n{document}</pre>\n\
         <p><a href=\"../problems\">All problem types</a> · <a href=\"../docs\">The API</a></p>",
        title = escaped(code.title),
        name = code.code,
        status = code.status,
        explanation = marked(code.explanation),
        document = escaped(&document(code)),
    );
    page(code.title, &body)
}

pub fn list() -> String {
    let mut body = format!("<h1>Problem types</h1>\n<p>{}</p>\n<dl>\n", marked(EVERY_TEXT));
    for code in CODES {
        writeln!(
            body,
            "<dt><a href=\"problems/{0}\"><code>{0}</code></a> · {1}</dt><dd>{2}</dd>",
            code.code,
            code.status,
            escaped(code.title)
        )
        .expect("a string takes any text");
    }
    body.push_str("</dl>\n<p><a href=\"docs\">The API</a></p>");
    page("Problem types", &body)
}

fn page(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title} – Rollcall</title>\n\
         <style>\n{STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
}

fn document(code: &Code) -> String {
    serde_json::to_string_pretty(&example(*code)).expect("a problem is JSON")
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Text between backticks is code.
fn marked(text: &str) -> String {
    let parts = escaped(text);
    let parts = parts.split('`').enumerate();
    parts
        .map(|(place, part)| if place % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() })
        .collect()
}
