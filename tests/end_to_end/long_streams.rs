//! A user with a long history is loaded from a snapshot, and nobody can tell.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

use crate::{
    USERS, ada,
    rollcall::{Client, Rollcall, eventually},
    user,
};

/// One after the other, in one request: seats of that number, and of each up to the last.
async fn seat(client: &Client, id: &str, seats: std::ops::RangeInclusive<u32>) -> Value {
    let command = |seats| json!({"type": "SetTraits", "id": id, "data": {"seats": seats}});
    let commands: Vec<Value> = seats.map(command).collect();
    let answer = client.post("/api/v1/commands", json!(commands)).await.expect(200).json();
    let outcomes = answer["outcomes"].as_array().unwrap();
    assert!(outcomes.iter().all(|outcome| outcome["status"] == 200), "{answer}");
    outcomes.last().unwrap()["version"].clone()
}

/// Version and bytes of the user's snapshot.
async fn snapshot(id: &str) -> Option<(i64, Vec<u8>)> {
    let mut owner = PgConnection::connect(&Rollcall::shared().ready.postgres).await.unwrap();
    let row = sqlx::query("SELECT sequence, sealed FROM log.snapshots WHERE aggregate_id = $1")
        .bind(id)
        .fetch_optional(&mut owner)
        .await
        .unwrap();
    row.map(|row| (row.get(0), row.get(1)))
}

#[tokio::test]
async fn a_user_of_many_events_is_loaded_from_a_snapshot_that_tells_nothing() {
    let client = Rollcall::shared().new_tenant();
    let id = client.post(USERS, ada()).await.expect(201).id();
    assert_eq!(seat(&client, &id, 101..=250).await, json!(151));
    let (version, sealed) = eventually("a snapshot", async || snapshot(&id).await).await;
    assert!(version > 100);
    assert!(!sealed.windows(8).any(|part| part == b"Lovelace" || part == b"ada@exam"));

    // Decided on what was true before the snapshot and after it.
    assert_eq!(seat(&client, &id, 250..=250).await, json!(151), "it is true already");
    let same = json!({"email": "ada@example.com"});
    client.post(&user(&id, "/verify-email"), same).await.expect(200);
    let patch = json!({"family_name": "King", "phone": "+4930123456"});
    let patched = client.patch(&user(&id, ""), patch).await.expect(200);
    assert_eq!(patched.json()["version"], 153);
    let history = client.get_after(&user(&id, "/history"), patched.token()).await.expect(200).json();
    let changes = json!([{"path": "/family_name", "from": "Lovelace", "to": "King"}]);
    assert_eq!(history["items"][0]["changes"], changes);
}
