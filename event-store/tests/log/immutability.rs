//! What nobody may do: the trigger for whoever owns the tables, privileges for the service.

use sqlx::{Connection, PgConnection};

use crate::support::{Test, stream, take, wish};
use rollcall_event_store::append::Expected;

async fn refusal(connection: &mut PgConnection, sql: &str) -> (String, String) {
    let error = sqlx::query(sql).execute(connection).await.expect_err(sql);
    let error = error.as_database_error().unwrap();
    (error.code().unwrap().to_string(), error.message().to_owned())
}

async fn filled() -> Test {
    let test = Test::new().await;
    wish(stream("ada"), Expected::Fresh, 2)
        .claims([take("email")])
        .key("key")
        .data_key(test.log.keys())
        .append(&test.log)
        .await
        .unwrap();
    test
}

#[tokio::test]
async fn not_even_the_owner_changes_events() {
    let test = filled().await;
    let mut owner = test.superuser().await;
    for sql in [
        "UPDATE log.events SET payload = '{}'",
        "UPDATE log.events SET payload = '{}' WHERE false",
        "DELETE FROM log.events",
        "TRUNCATE log.events",
    ] {
        let (code, message) = refusal(&mut owner, sql).await;
        assert_eq!(code, "42501", "{sql}");
        assert!(message.contains("events are immutable"), "{sql}: {message}");
    }
    assert_eq!(test.number("SELECT count(*) FROM log.events").await, 2);
}

#[tokio::test]
async fn the_service_may_do_what_it_needs_and_nothing_else() {
    let test = filled().await;
    let mut service = PgConnection::connect_with(&test.provisioned.service).await.unwrap();
    for sql in [
        "UPDATE log.events SET payload = '{}'",
        "DELETE FROM log.events",
        "TRUNCATE log.events",
        "ALTER TABLE log.events DISABLE TRIGGER ALL",
        "DROP TABLE log.events",
        "SELECT FROM log.events FOR UPDATE",
        "INSERT INTO log.events SELECT * FROM log.events",
        "INSERT INTO log.claims SELECT * FROM log.claims",
        "DELETE FROM log.claims",
        "INSERT INTO log.commands SELECT * FROM log.commands",
        "INSERT INTO vault.data_keys SELECT * FROM vault.data_keys",
        "INSERT INTO log.partitions VALUES (99)",
        "UPDATE log.partitions SET partition = partition + 100",
        "DELETE FROM log.partitions",
        "UPDATE log.meta SET partitions = 1",
        "UPDATE log.claims SET aggregate_id = 'eve'",
        "UPDATE log.commands SET status = 500",
        "DELETE FROM log.snapshots",
        "UPDATE vault.master_keys SET proof = ''",
        "UPDATE vault.digest_keys SET wrapped = ''",
        "UPDATE vault.data_keys SET wrapped = ''",
        "DELETE FROM vault.data_keys",
        "INSERT INTO vault.tombstones VALUES ('ada', 'acme', 'user', now())",
        "CREATE TABLE log.more (n integer)",
        "CREATE TABLE vault.more (n integer)",
        "CREATE TABLE public.more (n integer)",
        "CREATE SCHEMA more",
        "CREATE ROLE more",
        "SET session_replication_role = replica",
    ] {
        let (code, message) = refusal(&mut service, sql).await;
        assert_eq!(code, "42501", "{sql}: {message}");
    }
    for sql in ["DELETE FROM log.commands", "SELECT * FROM log.claims, log.meta, vault.tombstones"] {
        sqlx::query(sql).execute(&mut service).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_else_may_append_also_where_the_database_was_restored_without_privileges() {
    let test = filled().await;
    test.execute("GRANT EXECUTE ON FUNCTION log.append TO PUBLIC").await;
    // Which migrates once more.
    test.restarted().await;
    let granted = "SELECT count(*) FROM pg_proc, aclexplode(proacl) WHERE proname = 'append' AND grantee = 0";
    assert_eq!(test.number(granted).await, 0);
}

#[tokio::test]
async fn nothing_that_stands_in_public_is_run_with_the_owners_rights() {
    let test = filled().await;
    test.execute(
        "CREATE FUNCTION public.cardinality(integer[]) RETURNS integer LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'planted, and run as %', current_user; END $$;
         GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC",
    )
    .await;
    let log = test.another_log().await;
    wish(stream("after"), Expected::Fresh, 1).append(&log).await.unwrap();
}

#[tokio::test]
async fn services_work_where_nobody_else_may_run_functions_and_transactions_are_stricter() {
    let test = filled().await;
    test.execute(
        "DO $$ BEGIN
             EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L', current_database(), 'repeatable read');
         END $$;
         REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA log FROM PUBLIC",
    )
    .await;
    let log = test.another_log().await;
    wish(stream("after"), Expected::Fresh, 1).append(&log).await.unwrap();
    let isolation: String =
        sqlx::query_scalar("SHOW transaction_isolation").fetch_one(log.pool()).await.unwrap();
    assert_eq!(isolation, "read committed");
}
