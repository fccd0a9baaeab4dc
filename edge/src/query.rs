//! The query string, read strictly: a mistyped filter must not quietly list everybody.
//!
//! Shape: [`Query::parse`] -> parameters taken by name -> [`Query::finish`], which refuses what nobody took. Errors name
//! parameters and never quote values.

mod decode;
mod page;

use std::borrow::Cow;
use std::fmt::Display;

pub use page::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PageToken};

use crate::hint;
use crate::problem::{FieldError, Problem, code};

/// Parameters that one request may have.
const PARAMETERS_MAX: usize = 1000;
const ERRORS_MAX: usize = 100;

/// The parameters of one request, in order.
#[derive(Debug)]
pub struct Query<'a> {
    parameters: Vec<Parameter<'a>>,
    /// Every name that was asked for, for hints.
    asked: Vec<&'static str>,
    errors: Vec<FieldError>,
}

#[derive(Debug)]
struct Parameter<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
    taken: bool,
}

impl<'a> Query<'a> {
    /// Splits and decodes as forms do (WHATWG URL 5.1): `+` is a space, so a plus must be sent as `%2B`. Unlike forms,
    /// a `%` that begins no escape and bytes that are no UTF-8 are refused.
    ///
    /// # Errors
    /// 400 `malformed-query`.
    pub fn parse(query: Option<&'a str>) -> Result<Self, Problem> {
        let mut parameters = Vec::new();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            if parameters.len() == PARAMETERS_MAX {
                let detail = format!("there must not be more than {PARAMETERS_MAX} query parameters");
                return Err(Problem::new(code::MALFORMED_QUERY, detail));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decode::form(name)
                .map_err(|error| malformed(vec![FieldError::parameter("", format!("a name {error}"))]))?;
            let value = decode::form(value)
                .map_err(|error| malformed(vec![FieldError::parameter(cut(&name), error.to_string())]))?;
            parameters.push(Parameter { name, value, taken: false });
        }
        Ok(Self { parameters, asked: Vec::new(), errors: Vec::new() })
    }

    /// Takes a parameter that may stand once.
    pub fn one(&mut self, name: &'static str) -> Option<Cow<'a, str>> {
        let mut values = self.many(name).into_iter();
        let first = values.next();
        if values.next().is_some() {
            self.refuse(name, "must be given once");
        }
        first
    }

    /// Takes a parameter that may stand once and makes a value of it; the error of `parse` completes "`status` …".
    pub fn parse_one<T, E: Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(&self.one(name)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(name, error.to_string());
                None
            }
        }
    }

    /// Takes a parameter that may repeat.
    pub fn many(&mut self, name: &'static str) -> Vec<Cow<'a, str>> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        self.take(|parameter| parameter.name == name).map(|parameter| parameter.value.clone()).collect()
    }

    /// Takes the parameters whose names begin with `prefix` (such as `traits.`), with what follows it. Repeated ones are
    /// given as often as they stand.
    pub fn prefixed(&mut self, prefix: &'static str) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        let rest = |name: &Cow<'a, str>| match name {
            Cow::Borrowed(name) => Cow::Borrowed(&name[prefix.len()..]),
            Cow::Owned(name) => Cow::Owned(name[prefix.len()..].to_owned()),
        };
        self.take(|parameter| parameter.name.starts_with(prefix))
            .map(|parameter| (rest(&parameter.name), parameter.value.clone()))
            .collect()
    }

    /// `page_size`: 1 to [`PAGE_SIZE_MAX`], else [`PAGE_SIZE_DEFAULT`].
    pub fn page_size(&mut self) -> u32 {
        self.parse_one("page_size", page::size).unwrap_or(PAGE_SIZE_DEFAULT)
    }

    /// `page_token`, as [`PageToken::encode`] made it.
    pub fn page_token(&mut self) -> Option<PageToken> {
        self.parse_one("page_token", PageToken::decode)
    }

    /// Notes what is wrong with a parameter; [`Query::finish`] answers it.
    pub fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(FieldError::parameter(cut(name), detail));
        }
    }

    /// # Errors
    /// 400 `malformed-query` with all errors, unknown parameters among them.
    pub fn finish(mut self) -> Result<(), Problem> {
        for parameter in std::mem::take(&mut self.parameters).iter().filter(|parameter| !parameter.taken) {
            let hint = hint::suffix(&parameter.name, self.asked.iter().copied());
            self.refuse(&parameter.name, format!("is not a parameter here{hint}"));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(malformed(self.errors)) }
    }

    fn take(&mut self, wanted: impl Fn(&Parameter<'a>) -> bool) -> impl Iterator<Item = &Parameter<'a>> {
        self.parameters.iter_mut().filter(move |parameter| wanted(parameter)).map(|parameter| {
            parameter.taken = true;
            &*parameter
        })
    }
}

/// Longer names are cut in answers.
fn cut(name: &str) -> String {
    name.chars().take(100).collect()
}

fn malformed(errors: Vec<FieldError>) -> Problem {
    let detail = match errors.len() {
        1 => "one query parameter is not as it must be; see `errors`".to_owned(),
        count => format!("{count} query parameters are not as they must be; see `errors`"),
    };
    Problem::new(code::MALFORMED_QUERY, detail).with_errors(errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn errors(problem: Problem) -> Vec<(String, String)> {
        assert_eq!(problem.code, "malformed-query");
        problem.errors.into_iter().map(|error| (error.parameter.unwrap(), error.detail)).collect()
    }

    #[test]
    fn parameters_are_taken_decoded() {
        let query = "status=active&id=1&id=2&&traits.department=R%26D&traits.a%2eb=x+y&name=%C3%84da&flag";
        let mut query = Query::parse(Some(query)).unwrap();
        assert_eq!(query.one("status").as_deref(), Some("active"));
        assert_eq!(query.many("id"), ["1", "2"]);
        assert_eq!(
            query.prefixed("traits."),
            [("department".into(), "R&D".into()), ("a.b".into(), Cow::from("x y"))]
        );
        assert_eq!(query.one("name").as_deref(), Some("Äda"));
        assert_eq!(query.one("flag").as_deref(), Some(""));
        assert_eq!(query.one("email"), None);
        assert_eq!(query.page_size(), 50);
        assert_eq!(query.finish(), Ok(()));
        assert_eq!(Query::parse(None).unwrap().finish(), Ok(()));
    }

    #[test]
    fn all_that_is_wrong_is_listed_at_once_and_no_value_is_quoted() {
        let mut query = Query::parse(Some(
            "status=a&status=b&page_size=secret&stat=secret&page_token=secret&as_of=secret",
        ))
        .unwrap();
        query.one("status");
        query.page_size();
        query.page_token();
        query.parse_one("as_of", |_| Err::<(), _>("must be an instant"));
        let problem = query.finish().unwrap_err();
        assert!(!format!("{problem:?}").contains("secret"));
        assert_eq!(
            errors(problem),
            [
                ("status", "must be given once"),
                ("page_size", "must be a number from 1 to 1000"),
                ("page_token", "is not a token that a listing gave"),
                ("as_of", "must be an instant"),
                ("stat", "is not a parameter here; did you mean `status`?"),
            ]
            .map(|(name, detail)| (name.to_owned(), detail.to_owned()))
        );
    }

    #[test]
    fn the_page_size_has_bounds() {
        let size = |text: &str| {
            let text = format!("page_size={text}");
            let mut query = Query::parse(Some(&text)).unwrap();
            let size = query.page_size();
            query.finish().map(|()| size).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!((size("1"), size("1000")), (Ok(1), Ok(1000)));
        for bad in ["0", "1001", "-1", "%2B5", "", "1.0", "99999999999"] {
            assert_eq!(size(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn bad_escapes_and_bytes_are_refused() {
        for (bad, parameter) in [("a=%", "a"), ("a=%4", "a"), ("a=%zz", "a"), ("a=%ff", "a"), ("%C3=1", "")] {
            assert_eq!(errors(Query::parse(Some(bad)).unwrap_err())[0].0, parameter, "{bad}");
        }
    }

    #[test]
    fn the_number_of_parameters_and_of_errors_is_bounded() {
        assert_eq!(Query::parse(Some(&"a&".repeat(1001))).unwrap_err().status, 400);
        let text = "a&".repeat(1000);
        assert_eq!(Query::parse(Some(&text)).unwrap().finish().unwrap_err().errors.len(), 100);
    }

    proptest! {
        #[test]
        fn any_query_is_answered(text in "[a-c.%0-9f&=+]{0,40}|.*") {
            if let Ok(mut query) = Query::parse(Some(&text)) {
                query.one("a");
                query.prefixed("b.");
                query.page_token();
                let _ = query.finish();
            }
        }

        #[test]
        fn what_is_encoded_comes_back(name in ".+", value in ".*") {
            let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let text = format!("x.{}={}", encode(&name), encode(&value));
            let mut query = Query::parse(Some(&text)).unwrap();
            prop_assert_eq!(query.prefixed("x."), [(Cow::from(name), Cow::from(value))]);
        }
    }
}
