//! Events cannot be changed: not by the service, for want of the privilege, and not by the owner, for the trigger.

use crate::{
    log::Log,
    rollcall::{Rollcall, Setup},
};

const INSUFFICIENT_PRIVILEGE: &str = "42501";

#[tokio::test]
async fn nobody_updates_deletes_or_truncates_events() {
    let rollcall = Rollcall::start(Setup::default());
    rollcall.client("default").create("ada@example.com").await.expect(201);
    let log = Log::open(&rollcall.ready.postgres).await;

    let roles: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT usename::text FROM pg_stat_activity
         WHERE datname = current_database() AND usename <> current_user",
    )
    .fetch_all(&log.pool)
    .await
    .unwrap();
    assert_eq!(roles.len(), 1, "the service connects as one role that is not the owner: {roles:?}");
    let role = &roles[0];
    let privileges: Vec<(String, bool)> = sqlx::query_as(
        "SELECT p, has_table_privilege($1, 'log.events', p)
         FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES']) AS p",
    )
    .bind(role)
    .fetch_all(&log.pool)
    .await
    .unwrap();
    let granted: Vec<&str> =
        privileges.iter().filter(|(_, has)| *has).map(|(name, _)| name.as_str()).collect();
    assert_eq!(granted, ["SELECT"], "what is appended goes through log.append");
    let any_column: bool = sqlx::query_scalar("SELECT has_any_column_privilege($1, 'log.events', 'UPDATE')")
        .bind(role)
        .fetch_one(&log.pool)
        .await
        .unwrap();
    assert!(!any_column);
    let (owns, is_super, may_become_owner): (bool, bool, bool) = sqlx::query_as(
        "SELECT c.relowner = r.oid, r.rolsuper OR r.rolcreaterole OR r.rolbypassrls,
                pg_has_role(r.oid, c.relowner, 'MEMBER')
         FROM pg_class c, pg_roles r WHERE c.oid = 'log.events'::regclass AND r.rolname = $1",
    )
    .bind(role)
    .fetch_one(&log.pool)
    .await
    .unwrap();
    assert_eq!((owns, is_super, may_become_owner), (false, false, false));
    let may_create: bool = sqlx::query_scalar("SELECT has_schema_privilege($1, 'log', 'CREATE')")
        .bind(role)
        .fetch_one(&log.pool)
        .await
        .unwrap();
    assert!(!may_create);

    for change in [
        "UPDATE log.events SET event_type = 'UserErased'",
        "UPDATE log.events SET position = position WHERE false",
        "DELETE FROM log.events",
        "TRUNCATE log.events",
    ] {
        let refusal = sqlx::query(change).execute(&log.pool).await.unwrap_err();
        let refusal = refusal.as_database_error().unwrap();
        assert_eq!(refusal.code().as_deref(), Some(INSUFFICIENT_PRIVILEGE), "{change}");
        assert!(refusal.message().contains("events are immutable"), "{change}: {refusal}");
    }
    assert_eq!(log.assert_sound().await.len(), 1);
}
