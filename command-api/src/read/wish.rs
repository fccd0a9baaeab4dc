//! Typed commands: the items of a batch, and what the single routes share with them.

use rollcall_domain::{Email, PolicySlug, PolicyVersion, Reason, UserId, Wish};
use rollcall_edge::{
    Problem, Problems, json::Members, preconditions::IfMatch, problem::FieldError, problem::code,
};
use serde_json::value::RawValue;

use super::{Wished, association, members, new_user, preferences, trait_changes, user_patch};
use crate::Target;

/// One command of a batch.
#[derive(Debug)]
pub(crate) struct Item {
    pub target: Target,
    pub wish: Wish,
    pub reason: Option<Reason>,
    pub if_match: IfMatch,
}

const TYPES: &str = "CreateUser, UpdateUser, ChangeEmail, VerifyEmail, ChangePreferences, SetTraits, AddAssociation, \
                     RemoveAssociation, AcceptTerms, DeactivateUser or ReactivateUser";

/// `{"type": "DeactivateUser", "id": "…", "data": {"reason": "left"}, "if_match": 17}`; `fresh` is the id of a user who
/// brings none.
pub(crate) fn item(raw: &RawValue, pointer: String, fresh: UserId) -> Result<Item, Problem> {
    let mut envelope = Members::of(raw, pointer)?.named("a command");
    let mut problems = Problems::default();
    let command = envelope.required_text(&mut problems, "type", |text| Ok::<_, String>(text.to_owned()));
    let id = envelope.text(&mut problems, "id", UserId::parse);
    let version = envelope.unsigned(&mut problems, "if_match");
    let data = envelope.object(&mut problems, "data");
    let (data_pointer, id_pointer, type_pointer) =
        (envelope.pointer_to("data"), envelope.pointer_to("id"), envelope.pointer_to("type"));
    envelope.finish(&mut problems);
    let command = problems.into_value(command)?;
    let data = match data {
        Some(data) => data,
        None => Members::read(b"{}", data_pointer)?,
    };
    let if_match = version.map_or(IfMatch::Absent, |version| IfMatch::Versions(vec![version]));
    if command == "CreateUser" {
        let Wished { wish: (user, chosen), reason } = members(data.named("CreateUser"), new_user)?;
        let target = match (id, chosen) {
            (Some(_), Some(_)) => return Err(refused(id_pointer, "stands in data as well".to_owned())),
            (Some(id), None) | (None, Some(id)) => Target::Named(id),
            (None, None) => Target::Fresh(fresh),
        };
        return Ok(Item { target, wish: Wish::CreateUser(Box::new(user)), reason, if_match });
    }
    let Wished { wish, reason } =
        of_user(&command, data).unwrap_or_else(|| Err(refused(type_pointer, format!("must be {TYPES}"))))?;
    let target = id.map(Target::Named).ok_or_else(|| refused(id_pointer, "is required".to_owned()))?;
    Ok(Item { target, wish, reason, if_match })
}

fn refused(pointer: String, detail: String) -> Problem {
    Problem::new(code::INVALID_MEMBERS, "one member is not as it must be; see `errors`")
        .with_error(FieldError::pointer(pointer, detail))
}

/// The wish of a command on a user that exists; none for a type that there is not.
fn of_user(command: &str, data: Members<'_>) -> Option<Result<Wished<Wish>, Problem>> {
    Some(match command {
        "UpdateUser" => members(data.named("UpdateUser"), update_user),
        "ChangeEmail" => members(data.named("ChangeEmail"), change_email),
        "VerifyEmail" => members(data.named("VerifyEmail"), verify_email),
        "ChangePreferences" => members(data.named("ChangePreferences"), change_preferences),
        "SetTraits" => members(data.named("SetTraits"), set_traits),
        "AddAssociation" => members(data.named("AddAssociation"), |data, problems| {
            association(data, problems).map(Wish::AddAssociation)
        }),
        "RemoveAssociation" => members(data.named("RemoveAssociation"), |data, problems| {
            association(data, problems).map(Wish::RemoveAssociation)
        }),
        "AcceptTerms" => members(data.named("AcceptTerms"), accept_terms),
        "DeactivateUser" => members(data.named("DeactivateUser"), |_, _| Some(Wish::DeactivateUser)),
        "ReactivateUser" => members(data.named("ReactivateUser"), |_, _| Some(Wish::ReactivateUser)),
        _ => return None,
    })
}

pub(crate) fn update_user(members: &mut Members<'_>, problems: &mut Problems) -> Option<Wish> {
    user_patch(members, problems).map(|patch| Wish::UpdateUser(Box::new(patch)))
}

pub(crate) fn change_email(members: &mut Members<'_>, problems: &mut Problems) -> Option<Wish> {
    let email = members.required_text(problems, "email", Email::parse)?;
    Some(Wish::ChangeEmail { email })
}

pub(crate) fn verify_email(members: &mut Members<'_>, problems: &mut Problems) -> Option<Wish> {
    let email = members.required_text(problems, "email", Email::parse)?;
    Some(Wish::VerifyEmail { email })
}

pub(crate) fn change_preferences(members: &mut Members<'_>, problems: &mut Problems) -> Option<Wish> {
    // To replace all by nothing is a wish that must be said: a body that got lost on the way is none.
    members.required(problems, "email")?;
    Some(Wish::ChangePreferences { preferences: preferences(members, problems) })
}

pub(crate) fn set_traits(members: &mut Members<'_>, problems: &mut Problems) -> Option<Wish> {
    Some(Wish::SetTraits { traits: trait_changes(members, problems) })
}

pub(crate) fn accept_terms(members: &mut Members<'_>, problems: &mut Problems) -> Option<Wish> {
    let policy = members.required_text(problems, "policy", PolicySlug::parse);
    let version = members.required_text(problems, "version", PolicyVersion::parse);
    Some(Wish::AcceptTerms { policy: policy?, version: version? })
}
