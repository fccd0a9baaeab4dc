//! What users are sought: as parameters of a URL, and as a body.

use utoipa::{
    IntoParams, ToSchema,
    openapi::{
        KnownFormat, RefOr, Schema, SchemaFormat,
        schema::{AdditionalProperties, ObjectBuilder, SchemaType, Type},
    },
};

use super::UserStatus;

/// The filters of a listing; everything must hold.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserFilter {
    /// What the user's status is.
    #[param(required = false, inline, example = "active")]
    status: UserStatus,
    /// The whole address, in any case. POST …/query keeps it out of the URL.
    #[param(required = false, format = Email, max_length = 254, example = "ada@example.com")]
    email: String,
    /// Beginnings of words of a user's names, in any order.
    #[param(
        required = false,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
        max_length = 200,
        example = "ada lov"
    )]
    name: String,
    /// `source:id`, the whole of both.
    #[param(
        required = false,
        pattern = r"^[a-z0-9][a-z0-9_-]{0,62}:(?=[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])[^\u0000-\u001f\u007f-\u009f]{1,200}$",
        example = "hr:E0001"
    )]
    external_id: String,
}

/// What users are sought; everything must hold.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ada lov", "traits": {"department": "R&D"}, "page_size": 100}))]
pub(crate) struct UserQuery {
    #[schema(required = false, schema_with = status_or_null)]
    status: Option<String>,
    #[schema(required = false, schema_with = email_or_null)]
    email: Option<String>,
    #[schema(required = false, schema_with = sought_name_or_null)]
    name: Option<String>,
    #[schema(required = false, schema_with = external_id_or_null)]
    external_id: Option<String>,
    #[schema(required = false, schema_with = sought_traits)]
    traits: Option<()>,
    #[schema(required = false, minimum = 1, maximum = 1000, default = 50)]
    page_size: Option<u32>,
    /// `next_page_token` of the page before.
    #[schema(required = false, pattern = "^[A-Za-z0-9_-]{2,2048}$")]
    page_token: Option<String>,
}

/// A source, a colon, and text of one line with at least one character that shows.
const EXTERNAL_ID: &str = r"^[a-z0-9][a-z0-9_-]{0,62}:(?=[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])[^\u0000-\u001f\u007f-\u009f]{1,200}$";

/// Text of one line with at least one character that shows.
const LINE: &str =
    r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";

fn text_or_null() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
}

fn status_or_null() -> Schema {
    text_or_null().enum_values(Some([Some("active"), Some("deactivated"), None])).into()
}

fn email_or_null() -> Schema {
    text_or_null()
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Email)))
        .max_length(Some(254))
        .description(Some("The whole address, in any case"))
        .into()
}

fn sought_name_or_null() -> Schema {
    text_or_null()
        .pattern(Some(LINE))
        .max_length(Some(200))
        .description(Some(
            "Beginnings of words of a user's names, in any order; at least one letter or digit",
        ))
        .into()
}

fn external_id_or_null() -> Schema {
    text_or_null().pattern(Some(EXTERNAL_ID)).description(Some("`source:id`, the whole of both")).into()
}

fn sought_traits() -> Schema {
    let names = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^(?!reason$)[A-Za-z][A-Za-z0-9_.-]{0,63}$"));
    let values = ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::String, Type::Number, Type::Boolean]))
        .pattern(Some(r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$"))
        .max_length(Some(2000))
        .minimum(Some(-7.9e28))
        .maximum(Some(7.9e28));
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::Object, Type::Null]))
        .property_names(Some(names.build()))
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(values.into()))))
        .description(Some("Values by name of trait"))
        .into()
}
