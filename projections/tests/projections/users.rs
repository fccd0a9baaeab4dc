//! Users who live at random: wishes, what is decided of them, and what a pure fold makes of it.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::select};
use rollcall_domain::{
    Association, AssociationKey, AssociationKind, Category, Email, Name, NewUser, Patch, PolicySlug,
    PolicyVersion, Preferences, Stored, TraitName, TraitValue, UserCommand, UserEvent, UserPatch, Wish,
};
use rollcall_event_store::{
    Log, StreamId,
    append::{Append, Appended, Expected, NewDataKey, NewEvent},
    keys::DataKey,
};
use rollcall_projections::Profile;
use uuid::Uuid;

pub const TENANT: &str = "acme";

/// A user as the test knows it, beside the log.
#[derive(Clone)]
pub struct Known {
    pub stream: StreamId,
    pub profile: Profile,
    pub version: u64,
    pub position: u64,
    key: Option<DataKey>,
}

/// Users by number.
#[derive(Default)]
pub struct Users(pub BTreeMap<u8, Known>);

impl Users {
    /// Has the log store what is decided of a wish; the user is created where it does not exist.
    pub async fn wish(&mut self, log: &Log, user: u8, wish: Wish) {
        let known = self.0.entry(user).or_insert_with(|| Known {
            stream: StreamId::new(TENANT, "user", format!("user-{user}")),
            profile: Profile::default(),
            version: 0,
            position: 0,
            key: None,
        });
        if !known.profile.user.exists() {
            known.append(log, &[created(user)]).await;
        }
        if let Ok(events) = known.profile.user.decide(UserCommand::from(wish))
            && !events.is_empty()
        {
            known.append(log, &events).await;
        }
    }
}

impl Known {
    async fn append(&mut self, log: &Log, events: &[UserEvent]) -> Appended {
        let expected = Expected::Version(self.version);
        let mut data_key = None;
        let key = self.key.get_or_insert_with(|| {
            let (key, wrapped) = log.keys().new_data_key(&self.stream);
            data_key = Some(NewDataKey { key: key.clone(), wrapped });
            key
        });
        let new_events = events.iter().zip(self.version + 1..).map(|(event, sequence)| {
            let event_id = Uuid::now_v7();
            NewEvent {
                event_id,
                event_type: event.event_type(),
                event_version: event.event_version(),
                payload: event.payload(),
                personal: event
                    .personal()
                    .map(|plain| key.seal_event(event_id, &self.stream, sequence, &plain)),
                metadata: r#"{"actor":"tester"}"#.into(),
            }
        });
        let append = Append {
            stream: self.stream.clone(),
            expected,
            events: new_events.collect(),
            claims: Vec::new(),
            record: None,
            data_key,
        };
        let appended = log.appender().append(append).await.unwrap();
        // The events of one append are a microsecond apart.
        let last = appended.recorded_at.unwrap();
        for (event, later) in events.iter().zip((0..events.len()).rev()) {
            let recorded_at = last - std::time::Duration::from_micros(later as u64);
            self.profile.apply(event, recorded_at);
        }
        self.version += events.len() as u64;
        self.position = appended.position;
        appended
    }
}

fn created(user: u8) -> UserEvent {
    let mut new_user = NewUser::with_email(Email::parse(&format!("user-{user}@example.com")).unwrap());
    new_user.given_name = Some(Name::parse("Ada").unwrap());
    let events =
        rollcall_domain::User::default().decide(Wish::CreateUser(Box::new(new_user)).into()).unwrap();
    events.into_iter().next().unwrap()
}

/// Anything that may happen to a user.
pub fn wishes() -> impl Strategy<Value = Wish> {
    let name = || {
        select(vec!["Ada", "Grace Brewster", "Åse-Lill", "李"]).prop_map(|name| Name::parse(name).unwrap())
    };
    let association = || {
        select(vec!["gold", "silver"]).prop_map(|key| Association {
            kind: AssociationKind::parse("membership").unwrap(),
            key: AssociationKey::parse(key).unwrap(),
        })
    };
    let value = prop_oneof![
        Just(None),
        any::<u16>().prop_map(|n| Some(TraitValue::parse_number(&format!("{n}.50")).unwrap())),
        any::<bool>().prop_map(|b| Some(TraitValue::Boolean(b))),
        select(vec!["R&D", "tab\there"]).prop_map(|text| Some(TraitValue::parse_text(text).unwrap())),
    ];
    prop_oneof![
        (name(), any::<bool>()).prop_map(|(name, clear)| Wish::UpdateUser(Box::new(UserPatch {
            family_name: Patch::Set(name),
            display_name: if clear { Patch::Clear } else { Patch::Keep },
            ..UserPatch::default()
        }))),
        name().prop_map(|name| Wish::UpdateUser(Box::new(UserPatch {
            display_name: Patch::Set(name),
            ..UserPatch::default()
        }))),
        (0..5).prop_map(|n| Wish::ChangeEmail {
            email: Email::parse(&format!("new-{n}@example.com")).unwrap()
        }),
        (0..5).prop_map(|n| Wish::VerifyEmail {
            email: Email::parse(&format!("new-{n}@example.com")).unwrap()
        }),
        any::<bool>().prop_map(|wanted| Wish::ChangePreferences {
            preferences: Preferences { email: [(Category::parse("newsletter").unwrap(), wanted)].into() },
        }),
        (select(vec!["seats", "department"]), value).prop_map(|(name, value)| Wish::SetTraits {
            traits: [(TraitName::parse(name).unwrap(), value)].into(),
        }),
        association().prop_map(Wish::AddAssociation),
        association().prop_map(Wish::RemoveAssociation),
        (1..4).prop_map(|n| Wish::AcceptTerms {
            policy: PolicySlug::parse("privacy").unwrap(),
            version: PolicyVersion::parse(&format!("{n}")).unwrap(),
        }),
        Just(Wish::DeactivateUser),
        Just(Wish::ReactivateUser),
    ]
}

/// A wish that is never true already.
pub fn seats(n: u32) -> Wish {
    let value = TraitValue::parse_number(&n.to_string()).unwrap();
    Wish::SetTraits { traits: [(TraitName::parse("seats").unwrap(), Some(value))].into() }
}
