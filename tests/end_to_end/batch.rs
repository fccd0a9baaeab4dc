//! Batches of commands.

use serde_json::{Value, json};

use crate::{
    errors, ids,
    rollcall::{Answer, Client, Rollcall},
    user,
};

const COMMANDS: &str = "/api/v1/commands";

fn create(email: &str) -> Value {
    json!({"type": "CreateUser", "data": {"email": email, "given_name": "Ada"}})
}

async fn run(client: &Client, commands: Value) -> (Answer, Vec<Value>) {
    let answer = client.post(COMMANDS, commands).await.expect(200);
    let outcomes = answer.json()["outcomes"].as_array().unwrap().clone();
    (answer, outcomes)
}

fn statuses(outcomes: &[Value]) -> Vec<u64> {
    outcomes.iter().map(|outcome| outcome["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn each_command_of_a_batch_has_its_own_outcome() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("taken@example.com").await.expect(201).id();
    let missing = uuid::Uuid::now_v7();
    let (answer, outcomes) = run(
        &client,
        json!([
            create("new@example.com"),
            create("taken@example.com"),
            {"type": "DeactivateUser", "id": id, "data": {"reason": "left"}},
            {"type": "DeactivateUser", "id": missing},
            {"type": "UpdateUser", "id": id, "data": {"given_name": "Augusta"}, "if_match": 1},
            {"type": "CreateUser", "data": {"email": "no", "phone": 5}},
            {"type": "FireUser", "id": id},
            {"type": "UpdateUser", "data": {}},
            {"type": "UpdateUser", "id": id, "data": {}, "if_macht": 1},
            "ReactivateUser",
        ]),
    )
    .await;
    assert_eq!(statuses(&outcomes), [201, 409, 200, 404, 412, 422, 422, 422, 422, 422]);
    let created = outcomes[0]["id"].as_str().unwrap();
    assert_eq!(outcomes[0], json!({"status": 201, "id": created, "version": 1}));
    assert_eq!(outcomes[2], json!({"status": 200, "id": id, "version": 2}));
    let codes: Vec<_> = outcomes.iter().map(|outcome| outcome["problem"]["code"].as_str()).collect();
    assert_eq!(codes[1..5], [Some("email-taken"), None, Some("not-found"), Some("precondition-failed")]);
    let places: [&[&str]; 5] = [
        &["/5/data/email", "/5/data/given_name", "/5/data/phone"],
        &["/6/type"],
        &["/7/id"],
        &["/8/if_macht"],
        &["/9"],
    ];
    for (outcome, places) in outcomes[5..].iter().zip(places) {
        assert_eq!(outcome["problem"]["code"], "invalid-members");
        let found = errors(&outcome["problem"]);
        assert_eq!(found.keys().collect::<Vec<_>>(), places, "{outcome}");
    }
    let both = json!({"ids": [created, id]});
    let headers = [("Consistency-Token", answer.token())];
    let read = client.call("POST", "/api/v1/users/batch-get", &headers, Some(&both)).await.expect(200);
    assert_eq!(ids(&read), [created, id.as_str()]);
    assert_eq!(read.json()["items"][1]["status"], "deactivated");
}

#[tokio::test]
async fn commands_on_one_user_run_in_the_order_of_the_batch() {
    let client = Rollcall::shared().new_tenant();
    let id = uuid::Uuid::now_v7().to_string();
    let mut commands =
        vec![json!({"type": "CreateUser", "id": id, "data": {"email": "a@example.com", "given_name": "0"}})];
    for step in 1..=40 {
        commands.push(json!({"type": "UpdateUser", "id": id, "if_match": step, "data": {"given_name": step.to_string()}}));
        commands.push(create(&format!("other-{step}@example.com")));
    }
    let (answer, outcomes) = run(&client, commands.into()).await;
    let of_user: Vec<_> = outcomes.iter().filter(|outcome| outcome["id"] == id.as_str()).collect();
    let versions: Vec<_> = of_user.iter().map(|outcome| outcome["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (1..=41).collect::<Vec<_>>());
    let read = client.get_after(&user(&id, ""), answer.token()).await.expect(200);
    assert_eq!(read.json()["given_name"], "40");
}

#[tokio::test]
async fn every_command_can_stand_in_a_batch() {
    let client = Rollcall::shared().new_tenant();
    let id = uuid::Uuid::now_v7().to_string();
    let command = |name: &str, data: Value| json!({"type": name, "id": id, "data": data});
    let gold = json!({"kind": "membership", "key": "gold"});
    let (answer, outcomes) = run(
        &client,
        json!([
            command("CreateUser", json!({"email": "a@example.com", "given_name": "Ada"})),
            command("UpdateUser", json!({"family_name": "King"})),
            command("ChangeEmail", json!({"email": "b@example.com"})),
            command("VerifyEmail", json!({"email": "b@example.com"})),
            command("ChangePreferences", json!({"email": {"offers": true}})),
            command("SetTraits", json!({"seats": 1})),
            command("AddAssociation", gold.clone()),
            command("RemoveAssociation", gold),
            command("AcceptTerms", json!({"policy": "privacy", "version": "1"})),
            command("DeactivateUser", json!({})),
            command("ReactivateUser", json!({"reason": "back"})),
        ]),
    )
    .await;
    let versions: Vec<_> = outcomes.iter().map(|outcome| outcome["version"].as_u64()).collect();
    assert_eq!(versions, (1..=11).map(Some).collect::<Vec<_>>(), "{outcomes:?}");
    let read = client.get_after(&user(&id, ""), answer.token()).await.expect(200).json();
    assert_eq!((&read["email_verified"], &read["status"]), (&json!(true), &json!("active")));
}

#[tokio::test]
async fn a_batch_holds_at_most_a_thousand_commands() {
    let client = Rollcall::shared().new_tenant();
    let commands =
        |count: usize| -> Value { (0..count).map(|i| create(&format!("u{i}@example.com"))).collect() };
    let refused = client.post(COMMANDS, commands(1001)).await.expect(422);
    assert_eq!(refused.code(), "invalid-members");
    let (_, outcomes) = run(&client, commands(1000)).await;
    assert_eq!(statuses(&outcomes), vec![201; 1000], "none of the refused batch was done");
    let (_, outcomes) = run(&client, json!([])).await;
    assert!(outcomes.is_empty());
    for body in [json!({}), json!("CreateUser"), Value::Null] {
        assert_eq!(client.post(COMMANDS, body).await.expect(422).code(), "invalid-members");
    }
}

#[tokio::test]
async fn of_two_creates_with_one_email_in_a_batch_one_wins() {
    let client = Rollcall::shared().new_tenant();
    let (_, outcomes) = run(&client, json!([create("a@example.com"), create("A@example.com")])).await;
    let mut statuses = statuses(&outcomes);
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
}
