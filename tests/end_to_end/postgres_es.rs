//! The events table is what postgres-es reads.

use cqrs_es::{
    AggregateContext, EventStore,
    persist::{PersistedEventRepository, PersistedEventStore, SerializedEvent},
};
use postgres_es::PostgresEventRepository;
use rollcall_domain::{Status, Stored, User, UserEvent};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    USERS, ada,
    rollcall::{Client, Rollcall},
    user,
};

async fn repository() -> PostgresEventRepository {
    let pool = PgPool::connect(&Rollcall::shared().ready.postgres).await.unwrap();
    PostgresEventRepository::new(pool).with_tables("log.events", "log.snapshots")
}

/// A user with an event of every type; its id, and its events as the API shows them.
async fn eventful_user(client: &Client) -> (String, Vec<Value>) {
    let id = client.post(USERS, ada()).await.expect(201).id();
    let post = async |verb: &str, body: Value| client.post(&user(&id, verb), body).await.expect(200);
    client.patch(&user(&id, ""), json!({"family_name": "King"})).await.expect(200);
    post("/verify-email", json!({"email": "ada@example.com"})).await;
    post("/change-email", json!({"email": "king@example.com"})).await;
    client.call("PUT", &user(&id, "/preferences"), &[], Some(&json!({"email": {}}))).await.expect(200);
    client.patch(&user(&id, "/traits"), json!({"seats": null})).await.expect(200);
    client.call("PUT", &user(&id, "/associations/team/red"), &[], None).await.expect(200);
    client.call("DELETE", &user(&id, "/associations/team/red"), &[], None).await.expect(200);
    post("/accept-terms", json!({"policy": "privacy", "version": "2026-01"})).await;
    post("/deactivate", json!({"reason": "left"})).await;
    let last = post("/reactivate", json!({"reason": "back"})).await;
    let events = client.get_after(&user(&id, "/events"), last.token()).await.expect(200).json();
    (id, events["items"].as_array().unwrap().clone())
}

#[tokio::test]
async fn its_repository_reads_our_streams() {
    let client = Rollcall::shared().new_tenant();
    let (id, shown) = eventful_user(&client).await;
    let mut types: Vec<_> = shown.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    types.sort_unstable();
    let mut all: Vec<_> = UserEvent::types().collect();
    all.sort_unstable();
    assert_eq!(types, all, "an event of every type");

    let read = repository().await.get_events::<User>(&id).await.unwrap();
    assert_eq!(read.len(), shown.len());
    for (event, shown) in read.iter().zip(&shown) {
        let SerializedEvent {
            aggregate_id,
            sequence,
            aggregate_type,
            event_type,
            event_version,
            payload,
            metadata,
        } = event;
        assert_eq!((aggregate_id, aggregate_type.as_str()), (&id, "user"));
        assert_eq!(*sequence as u64, shown["sequence"].as_u64().unwrap());
        assert_eq!(
            (&json!(event_type), &json!(event_version)),
            (&shown["event_type"], &shown["event_version"])
        );
        assert_eq!((payload, metadata), (&shown["payload"], &shown["metadata"]));
        let typed: UserEvent = serde_json::from_value(payload.clone()).unwrap();
        assert_eq!(typed.event_type(), event_type);
        assert_eq!(typed.personal(), None, "erased");
        assert!(!payload.to_string().contains("example.com"), "{payload}");
    }
    let last = repository().await.get_last_events::<User>(&id, 9).await.unwrap();
    assert_eq!(last.iter().map(|event| event.sequence).collect::<Vec<_>>(), [10, 11]);
}

#[tokio::test]
async fn its_store_loads_our_aggregates() {
    let client = Rollcall::shared().new_tenant();
    let (id, shown) = eventful_user(&client).await;
    let store = PersistedEventStore::<PostgresEventRepository, User>::new_event_store(repository().await);
    let mut context = store.load_aggregate(&id).await.unwrap();
    assert_eq!(context.current_sequence, shown.len());
    let user = context.aggregate();
    assert_eq!((user.status(), user.email(), user.given_name()), (Some(Status::Active), None, None));
    let events = store.load_events(&id).await.unwrap();
    assert!(events.iter().zip(1..).all(|(event, sequence)| event.sequence == sequence));
    assert_eq!(events[0].metadata["actor"], "anonymous");

    let nobody = store.load_aggregate(&uuid::Uuid::now_v7().to_string()).await.unwrap();
    assert_eq!(nobody.current_sequence, 0);
}
