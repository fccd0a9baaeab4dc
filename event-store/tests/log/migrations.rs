//! Migration: safe to run twice and at once, and clear about what it refuses.

use futures_util::future::join_all;
use rollcall_event_store::{
    Error as OpenError, Log, Options,
    append::Expected,
    migrate::{self, Error, Provisioned},
};
use uuid::Uuid;

use crate::{
    server,
    support::{Source, Test, migrate, stream, wish},
};

async fn with_key(owner: &str, key: Option<[u8; 32]>) -> Result<Provisioned, Error> {
    migrate::migrate(owner, migrate::Options::default(), &Source(key)).await
}

/// `Provisioned` does not print: it holds keys.
fn refusal(outcome: Result<Provisioned, Error>) -> Error {
    outcome.err().expect("the migration was to be refused")
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let test = Test::new().await;
    wish(stream("ada"), Expected::Fresh, 1).append(&test.log).await.unwrap();
    let digest = test.log.keys().digest("acme", "email", b"ada@example.com");
    let again = migrate::migrate(
        &test.owner,
        migrate::Options { partitions: 4, ..Default::default() },
        &Source(Some([7; 32])),
    )
    .await
    .unwrap();
    assert_eq!(again.log_id, test.log.log_id());
    assert_eq!(again.partitions, 16, "the first migration fixed the number");
    assert_eq!(again.keys.digest("acme", "email", b"ada@example.com"), digest);
    assert_eq!(test.number("SELECT count(*) FROM log.partitions").await, 16);
    assert_eq!(test.number("SELECT sum(position)::int8 FROM log.heads").await, 1);
    // Whoever has it open goes on.
    wish(stream("ada"), Expected::Version(1), 1).append(&test.log).await.unwrap();
}

#[tokio::test]
async fn four_that_migrate_at_once_get_one_log() {
    let owner = server::fresh_database().await;
    let provisioned: Vec<Provisioned> =
        join_all((0..4).map(|_| migrate(&owner))).await.into_iter().map(Result::unwrap).collect();
    for each in &provisioned {
        assert_eq!(each.log_id, provisioned[0].log_id);
        let log = Log::open(each, Options::default()).await.unwrap();
        let digest = |keys: &rollcall_event_store::keys::Keys| keys.digest("acme", "email", b"x");
        assert_eq!(digest(log.keys()), digest(&provisioned[0].keys));
        wish(stream(&Uuid::now_v7().to_string()), Expected::Fresh, 1).append(&log).await.unwrap();
    }
}

#[tokio::test]
async fn a_log_has_the_number_of_partitions_that_was_chosen_first() {
    let owner = server::fresh_database().await;
    let options = migrate::Options { partitions: 3, ..Default::default() };
    let provisioned = migrate::migrate(&owner, options, &Source(Some([7; 32]))).await.unwrap();
    assert_eq!(provisioned.partitions, 3);
    let log = Log::open(&provisioned, Options::default()).await.unwrap();
    for n in 0..30 {
        let stream = stream(&format!("user-{n}"));
        let appended = wish(stream.clone(), Expected::Fresh, 1).append(&log).await.unwrap();
        assert_eq!(appended.partition, stream.partition(3));
    }
}

#[tokio::test]
async fn another_master_key_or_none_is_refused() {
    let test = Test::new().await;
    let wrong = refusal(with_key(&test.owner, Some([8; 32])).await);
    assert!(matches!(wrong, Error::WrongMasterKey { .. }), "{wrong:?}");
    let none = refusal(with_key(&test.owner, None).await);
    assert!(matches!(none, Error::NoMasterKey { .. }), "{none:?}");
    with_key(&test.owner, Some([7; 32])).await.unwrap();
}

#[tokio::test]
async fn a_first_start_without_a_master_key_can_be_tried_again() {
    let owner = server::fresh_database().await;
    let refused = refusal(with_key(&owner, None).await);
    assert!(matches!(refused, Error::MasterKeySource(_)), "{refused:?}");
    with_key(&owner, Some([7; 32])).await.unwrap();
}

async fn attach(url: &str) -> Result<Provisioned, Error> {
    migrate::attach(url, &Source(Some([7; 32]))).await
}

/// As if a newer binary had migrated.
async fn migrated_by_a_newer_binary(test: &Test) {
    test.execute(
        "INSERT INTO log._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '', 1)",
    )
    .await;
}

#[tokio::test]
async fn an_older_binary_serves_beside_a_newer_one_where_the_schema_allows_it() {
    let test = Test::new().await;
    migrated_by_a_newer_binary(&test).await;
    migrate(&test.owner).await.unwrap();
    let attached = attach(&test.owner).await.unwrap();
    let log = Log::open(&attached, Options::default()).await.unwrap();
    wish(stream("user-1"), Expected::Fresh, 1).append(&log).await.unwrap();
}

#[tokio::test]
async fn a_schema_that_an_older_binary_cannot_work_with_is_refused() {
    let test = Test::new().await;
    migrated_by_a_newer_binary(&test).await;
    test.execute("UPDATE log.meta SET requires = 9999").await;
    for refused in [migrate(&test.owner).await, attach(&test.owner).await].map(refusal) {
        assert!(matches!(refused, Error::SchemaNewer(9999)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_service_attaches_with_its_own_role_and_no_password() {
    let test = Test::new().await;
    let role = test.provisioned.service.get_username();
    let place = test.owner.rsplit_once('@').unwrap().1;
    let attached = attach(&format!("postgres://{role}@{place}")).await.unwrap();
    assert_eq!((attached.log_id, attached.partitions), (test.log.log_id(), test.log.partitions()));
    assert_eq!(attached.service.get_username(), role);
    let log = Log::open(&attached, Options::default()).await.unwrap();
    wish(stream("user-1"), Expected::Fresh, 1).append(&log).await.unwrap();
    let digest = |keys: &rollcall_event_store::keys::Keys| keys.digest("acme", "email", b"ada@example.com");
    assert_eq!(digest(&attached.keys), digest(&test.provisioned.keys));
}

#[tokio::test]
async fn the_services_role_may_be_named() {
    let test = Test::new().await;
    let role = format!("rollcall_service_{}", Uuid::new_v4().simple());
    let options = migrate::Options { service_role: Some(role.clone()), ..Default::default() };
    migrate::migrate(&test.owner, options, &Source(Some([7; 32]))).await.unwrap();
    let place = test.owner.rsplit_once('@').unwrap().1;
    assert_eq!(attach(&format!("postgres://{role}@{place}")).await.unwrap().service.get_username(), role);
    // A migration that names none leaves it.
    assert_eq!(migrate(&test.owner).await.unwrap().service.get_username(), role);
    // Another log of the cluster must not change its password.
    let other = Test::new().await;
    let options = migrate::Options { service_role: Some(role.clone()), ..Default::default() };
    let refused = refusal(migrate::migrate(&other.owner, options, &Source(Some([7; 32]))).await);
    assert!(
        matches!(&refused, Error::RoleTaken { owner, .. } if owner.contains("Rollcall, log")),
        "{refused:?}"
    );
    attach(&format!("postgres://{role}@{place}")).await.unwrap();
    // The refusal left the other log as it was.
    assert_eq!(
        migrate(&other.owner).await.unwrap().service.get_username(),
        other.provisioned.service.get_username()
    );
    for bad in ["rollcall", "rollcall_service; DROP ROLE x", "rollcall_serviceÄ"] {
        let options = migrate::Options { service_role: Some(bad.to_owned()), ..Default::default() };
        let refused = refusal(migrate::migrate(&test.owner, options, &Source(Some([7; 32]))).await);
        assert!(matches!(refused, Error::ServiceRole(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn attaching_to_what_was_not_migrated_says_what_to_run() {
    let owner = server::fresh_database().await;
    let empty = refusal(attach(&owner).await);
    assert!(matches!(empty, Error::NotMigrated), "{empty:?}");
    let test = Test::new().await;
    test.execute("DELETE FROM log._sqlx_migrations").await;
    let older = refusal(attach(&test.owner).await);
    assert!(
        matches!(older, Error::NotMigrated) && older.to_string().contains("rollcall migrate"),
        "{older:?}"
    );
}

#[tokio::test]
async fn attaching_needs_the_right_key_and_the_right_to_read() {
    let test = Test::new().await;
    let wrong = refusal(migrate::attach(&test.owner, &Source(Some([8; 32]))).await);
    assert!(matches!(wrong, Error::WrongMasterKey { .. }), "{wrong:?}");
    let none = refusal(migrate::attach(&test.owner, &Source(None)).await);
    assert!(matches!(none, Error::NoMasterKey { .. }), "{none:?}");
    let stranger = format!("stranger_{}", Uuid::new_v4().simple());
    test.execute(&format!("CREATE ROLE {stranger} LOGIN PASSWORD 'x'")).await;
    let place = test.owner.rsplit_once('@').unwrap().1;
    let refused = refusal(attach(&format!("postgres://{stranger}:x@{place}")).await);
    assert!(matches!(&refused, Error::MayNotRead { user, .. } if *user == stranger), "{refused:?}");
}

#[tokio::test]
async fn a_log_with_another_hash_is_refused() {
    let test = Test::new().await;
    test.execute("UPDATE log.meta SET hash = 'sha3-256'").await;
    let refused = refusal(migrate(&test.owner).await);
    assert!(matches!(&refused, Error::Hash { found } if found == "sha3-256"), "{refused:?}");
}

#[tokio::test]
async fn a_log_that_was_put_in_anothers_place_is_refused() {
    let test = Test::new().await;
    test.execute("UPDATE log.meta SET log_id = gen_random_uuid()").await;
    let refused = Log::open(&test.provisioned, Options::default()).await.err().unwrap();
    assert!(
        matches!(refused, OpenError::Foreign { expected, .. } if expected == test.log.log_id()),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_is_no_address_and_who_does_not_answer_are_told_apart() {
    let no_url = refusal(migrate("mysql://somewhere/rollcall").await);
    assert!(matches!(no_url, Error::Url), "{no_url:?}");
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = refusal(migrate(&format!("postgres://owner:secret@{at}/rollcall")).await);
    assert!(matches!(&nobody, Error::Unreachable { at: told, .. } if *told == at.to_string()), "{nobody:?}");
    assert!(!format!("{nobody}").contains("secret"));
}
