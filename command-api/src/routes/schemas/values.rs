//! The values within bodies. White space around text is trimmed, which the patterns leave unsaid.
//!
//! A format that JSON Schema does not know (`language-tag`, `time-zone`) is a name for a rule that no pattern can tell.

use utoipa::openapi::schema::{
    AdditionalProperties, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Text of one line with at least one character that shows.
const LINE: &str =
    r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";

/// As [`LINE`], with line breaks.
const LINES: &str = r"^[^\u0000-\u0009\u000b\u000c\u000e-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u0009\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";

/// As [`LINES`], with tabs.
const PROSE: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";

/// No control characters but TAB, CR and LF; may be empty.
const TRAIT_TEXT: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";

/// `reason` says why, wherever it stands.
const TRAIT_NAME: &str = r"^(?!reason$)[A-Za-z][A-Za-z0-9_.-]{0,63}$";

const SLUG: &str = "^[a-z0-9][a-z0-9_-]{0,62}$";

/// The largest magnitude that an exact decimal has room for.
const NUMBER_MAX: f64 = 7.9e28;

fn object(properties: usize, names: &str, values: Schema) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(names)).build()))
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(values))))
        .max_properties(Some(properties))
}

fn text(pattern: &str, characters: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).max_length(Some(characters))
}

fn of_format(format: SchemaFormat) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).format(Some(format))
}

fn or_null(schema: ObjectBuilder, of: Type) -> ObjectBuilder {
    schema.schema_type(SchemaType::Array(vec![of, Type::Null]))
}

pub fn email() -> Schema {
    of_format(SchemaFormat::KnownFormat(KnownFormat::Email))
        .max_length(Some(254))
        .description(Some(
            "One address (RFC 5321, internationalised by RFC 6531), kept in lower case; unique within the tenant",
        ))
        .into()
}

pub fn name() -> Schema {
    or_null(text(LINE, 200), Type::String).into()
}

pub fn phone() -> Schema {
    let number = ObjectBuilder::new().pattern(Some(r"^\+[1-9][0-9]{1,14}$"));
    or_null(number, Type::String).description(Some("E.164")).into()
}

pub fn locale() -> Schema {
    or_null(of_format(SchemaFormat::Custom("language-tag".to_owned())), Type::String)
        .description(Some("A BCP 47 tag that begins with a known language"))
        .into()
}

pub fn time_zone() -> Schema {
    or_null(of_format(SchemaFormat::Custom("time-zone".to_owned())), Type::String)
        .description(Some("A name of the IANA time zone database"))
        .into()
}

pub fn kind() -> Schema {
    or_null(ObjectBuilder::new(), Type::String)
        .enum_values(Some([Some("customer"), Some("admin"), None]))
        .description(Some("`customer` where it is absent"))
        .into()
}

pub fn reason() -> Schema {
    or_null(text(PROSE, 500), Type::String).description(Some("Why; it is kept with the event")).into()
}

pub fn formatted_address() -> Schema {
    or_null(text(LINES, 1000), Type::String).into()
}

pub fn street_address() -> Schema {
    or_null(text(LINES, 200), Type::String).into()
}

pub fn address_part() -> Schema {
    or_null(text(LINE, 200), Type::String).into()
}

pub fn association_kind() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[a-z][a-z0-9_-]{0,62}$")).into()
}

pub fn association_key() -> Schema {
    text(LINE, 200).into()
}

pub fn policy() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[a-z0-9][a-z0-9-]{0,62}$")).into()
}

pub fn policy_version() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9._-]{1,64}$")).into()
}

fn trait_value(types: Vec<Type>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(types))
        .pattern(Some(TRAIT_TEXT))
        .max_length(Some(2000))
        .minimum(Some(-NUMBER_MAX))
        .maximum(Some(NUMBER_MAX))
        .description(Some(
            "Text, a number (exact, up to 28 significant digits) or a boolean; text that is a date, such as \
             `2026-05-03`, is one",
        ))
}

pub fn traits() -> Schema {
    let values = trait_value(vec![Type::String, Type::Number, Type::Boolean]).build();
    or_null(object(500, TRAIT_NAME, values.into()), Type::Object).description(Some("Traits by name")).into()
}

pub fn trait_changes() -> Schema {
    or_null(object(500, TRAIT_NAME, trait_value_or_null()), Type::Object)
        .description(Some("Traits by name; null removes one, or all of them"))
        .into()
}

fn external_id(schema: ObjectBuilder) -> Schema {
    schema.pattern(Some(LINE)).max_length(Some(200)).into()
}

pub fn external_ids() -> Schema {
    let id = external_id(ObjectBuilder::new().schema_type(Type::String));
    or_null(object(20, SLUG, id), Type::Object)
        .description(Some("Ids by source, each unique within the tenant"))
        .into()
}

pub fn external_id_changes() -> Schema {
    let id = external_id(or_null(ObjectBuilder::new(), Type::String));
    or_null(object(20, SLUG, id), Type::Object)
        .description(Some("Ids by source; null removes one, or all of them"))
        .into()
}

pub fn categories() -> Schema {
    or_null(by_category(), Type::Object).into()
}

/// Where null would be as good as nothing, and nothing will not do.
pub fn required_categories() -> Schema {
    by_category().into()
}

fn by_category() -> ObjectBuilder {
    let wanted = ObjectBuilder::new().schema_type(Type::Boolean).into();
    object(100, SLUG, wanted).description(Some("By category"))
}

pub fn category_changes() -> Schema {
    let wanted = or_null(ObjectBuilder::new(), Type::Boolean).into();
    or_null(object(100, SLUG, wanted), Type::Object)
        .description(Some("By category; null removes one, or all of them"))
        .into()
}

/// The value of a trait, or null, which removes it.
fn trait_value_or_null() -> Schema {
    trait_value(vec![Type::String, Type::Number, Type::Boolean, Type::Null]).into()
}

/// The body of SetTraits: the traits stand beside `reason`.
pub(crate) struct TraitPatch;

impl PartialSchema for TraitPatch {
    fn schema() -> RefOr<Schema> {
        object(501, "^[A-Za-z][A-Za-z0-9_.-]{0,63}$", trait_value_or_null())
            .property("reason", reason())
            .description(Some("Traits by name; null removes one. The member `reason` is none"))
            .examples([serde_json::json!({"department": "Sales", "seats": null, "reason": "moved"})])
            .into()
    }
}

impl ToSchema for TraitPatch {}
