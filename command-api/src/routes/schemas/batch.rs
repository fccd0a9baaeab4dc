//! Batches: typed commands and their outcomes.

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::{AcceptTerms, CreateUser, Email, Preferences, Reason, TraitPatch, UpdateUser, values};

/// At most 1,000 commands.
#[derive(ToSchema)]
#[schema(max_items = 1000, example = json!([
    {"type": "CreateUser", "data": {"email": "ada@example.com", "given_name": "Ada"}},
    {"type": "DeactivateUser", "id": "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887", "data": {"reason": "left"}}]))]
pub(crate) struct Commands(Vec<Command>);

/// A command of a batch.
struct Command;

/// The data of AddAssociation and RemoveAssociation.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"kind": "membership", "key": "gold"}))]
struct AssociationChange {
    #[schema(schema_with = values::association_kind)]
    kind: String,
    #[schema(schema_with = values::association_key)]
    key: String,
    #[schema(required = false, schema_with = values::reason)]
    reason: Option<String>,
}

/// Each type of command with the name of its data's schema, which is what its own route takes as a body.
fn types() -> [(&'static str, RefOr<Schema>); 11] {
    fn of<T: ToSchema>() -> RefOr<Schema> {
        Ref::from_schema_name(T::name()).into()
    }
    [
        ("CreateUser", of::<CreateUser>()),
        ("UpdateUser", of::<UpdateUser>()),
        ("ChangeEmail", of::<Email>()),
        ("VerifyEmail", of::<Email>()),
        ("ChangePreferences", of::<Preferences>()),
        ("SetTraits", of::<TraitPatch>()),
        ("AddAssociation", of::<AssociationChange>()),
        ("RemoveAssociation", of::<AssociationChange>()),
        ("AcceptTerms", of::<AcceptTerms>()),
        ("DeactivateUser", of::<Reason>()),
        ("ReactivateUser", of::<Reason>()),
    ]
}

impl PartialSchema for Command {
    fn schema() -> RefOr<Schema> {
        let one_of = types().into_iter().fold(OneOfBuilder::new(), |one_of, (name, data)| {
            let id = ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Uuid)))
                .description(Some("The user"));
            let version = ObjectBuilder::new()
                .schema_type(SchemaType::Array(vec![Type::Integer, Type::Null]))
                .minimum(Some(0))
                .description(Some("The version that the command is meant for"));
            let command = ObjectBuilder::new()
                .title(Some(name))
                .property("type", ObjectBuilder::new().schema_type(Type::String).enum_values(Some([name])))
                .required("type")
                .property("id", id)
                .property("data", data)
                .property("if_match", version)
                .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
            // A new user needs data, and an id only where the caller chooses one; the others need to know whom.
            one_of.item(command.required(if name == "CreateUser" { "data" } else { "id" }))
        });
        one_of
            .description(Some(
                "A command on one user; `data` is what the command's own route takes as its body",
            ))
            .into()
    }
}

impl ToSchema for Command {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        fn with<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            schemas.push((T::name().into_owned(), T::schema()));
            T::schemas(schemas);
        }
        with::<CreateUser>(schemas);
        with::<UpdateUser>(schemas);
        with::<Email>(schemas);
        with::<Preferences>(schemas);
        with::<TraitPatch>(schemas);
        with::<AssociationChange>(schemas);
        with::<AcceptTerms>(schemas);
        with::<Reason>(schemas);
    }
}

/// An outcome for each command, in their order.
#[derive(ToSchema)]
#[schema(example = json!({"outcomes": [
    {"status": 201, "id": "01934a1c-7c5e-7b6a-9d2f-3c4b5a697887", "version": 1},
    {"status": 409, "problem": {"type": "/problems/email-taken", "title": "The email address is taken", "status": 409,
        "detail": "another user of this tenant has this email", "code": "email-taken",
        "errors": [{"pointer": "/1/data/email", "detail": "is another user's"}]}}]}))]
pub(crate) struct Outcomes {
    outcomes: Vec<Outcome>,
}

/// `id` and `version` where it succeeded, `problem` where it did not.
#[derive(ToSchema)]
struct Outcome {
    /// As the command's own route would have answered.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    #[schema(required = false, nullable = false)]
    id: Option<Uuid>,
    /// The user's version after the command.
    #[schema(required = false, nullable = false, minimum = 1)]
    version: Option<u64>,
    #[schema(required = false, schema_with = problem)]
    problem: Option<()>,
}

fn problem() -> Ref {
    Ref::from_schema_name("Problem")
}
