//! `given([…]).when(…).then([…])`, in the words of the domain, over the test framework of cqrs-es.

use cqrs_es::test::{AggregateResultValidator, AggregateTestExecutor, TestFramework};

use super::super::*;
use crate::value::Reason;

pub(super) struct Given(AggregateTestExecutor<User>);
pub(super) struct When(AggregateResultValidator<User>);

pub(super) fn given(events: impl IntoIterator<Item = UserEvent>) -> Given {
    Given(TestFramework::with(()).given(events.into_iter().collect()))
}

pub(super) fn given_nobody() -> Given {
    Given(TestFramework::with(()).given_no_previous_events())
}

impl Given {
    pub(super) fn when(self, command: impl Into<UserCommand>) -> When {
        When(self.0.when(command.into()))
    }
}

impl When {
    pub(super) fn then(self, events: impl IntoIterator<Item = UserEvent>) {
        self.0.then_expect_events(events.into_iter().collect());
    }

    pub(super) fn then_nothing(self) {
        self.then([]);
    }

    pub(super) fn then_refused(self, refusal: Refusal) {
        self.0.then_expect_error(refusal);
    }

    pub(super) fn result(self) -> Result<Vec<UserEvent>, Refusal> {
        self.0.inspect_result()
    }
}

impl Wish {
    pub(super) fn because(self, reason: &str) -> UserCommand {
        UserCommand { reason: Some(Reason::parse(reason).unwrap()), ..self.into() }
    }

    pub(super) fn rectifying(self) -> UserCommand {
        UserCommand { may_rectify: true, ..self.into() }
    }
}

/// The state that events lead to.
pub(super) fn fold<'a>(events: impl IntoIterator<Item = &'a UserEvent>) -> User {
    let mut user = User::default();
    for event in events {
        user.evolve(event);
    }
    user
}

pub(super) fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(super) fn text(text: &str) -> TraitValue {
    TraitValue::parse_text(text).unwrap()
}

pub(super) fn number(text: &str) -> TraitValue {
    TraitValue::parse_number(text).unwrap()
}

pub(super) fn trait_name(text: &str) -> TraitName {
    TraitName::parse(text).unwrap()
}

pub(super) fn association(kind: &str, key: &str) -> Association {
    use crate::value::{AssociationKey, AssociationKind};

    Association { kind: AssociationKind::parse(kind).unwrap(), key: AssociationKey::parse(key).unwrap() }
}

pub(super) fn source(text: &str) -> Source {
    Source::parse(text).unwrap()
}

pub(super) fn external_id(text: &str) -> ExternalId {
    ExternalId::parse(text).unwrap()
}

pub(super) fn preferences(categories: &[(&str, bool)]) -> Preferences {
    use crate::value::Category;

    let email = categories.iter().map(|(name, wanted)| (Category::parse(name).unwrap(), *wanted)).collect();
    Preferences { email }
}

pub(super) fn accept(policy: &str, version: &str) -> Wish {
    Wish::AcceptTerms {
        policy: PolicySlug::parse(policy).unwrap(),
        version: PolicyVersion::parse(version).unwrap(),
    }
}

pub(super) fn change_email(to: &str) -> Wish {
    Wish::ChangeEmail { email: email(to) }
}

pub(super) fn verify_email(address: &str) -> Wish {
    Wish::VerifyEmail { email: email(address) }
}

pub(super) fn set_traits(traits: &[(&str, Option<TraitValue>)]) -> Wish {
    Wish::SetTraits { traits: traits.iter().map(|(name, value)| (trait_name(name), value.clone())).collect() }
}

pub(super) fn update(patch: UserPatch) -> Wish {
    Wish::UpdateUser(Box::new(patch))
}

pub(super) fn create(new_user: NewUser) -> Wish {
    Wish::CreateUser(Box::new(new_user))
}
