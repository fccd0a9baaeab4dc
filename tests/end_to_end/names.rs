//! Finding users by the beginnings of their names.

use serde_json::json;

use crate::{
    USERS, ids,
    rollcall::{Client, Rollcall},
};

/// The given names of those whom a search finds, by GET and by POST.
async fn found(client: &Client, token: &str, name: &str) -> Vec<String> {
    let headers = [("Consistency-Token", token)];
    let posted =
        client.call("POST", "/api/v1/users/query", &headers, Some(&json!({"name": name}))).await.expect(200);
    let request = client.request("GET", USERS).query(&[("name", name)]).header("Consistency-Token", token);
    let got = Client::send(request).await.unwrap().expect(200);
    assert_eq!(ids(&got), ids(&posted), "{name}");
    let given = |item: &serde_json::Value| item["given_name"].as_str().unwrap().to_owned();
    let mut names: Vec<_> = got.json()["items"].as_array().unwrap().iter().map(given).collect();
    names.sort_unstable();
    names
}

async fn people(client: &Client, names: &[(&str, &str)]) -> String {
    let mut commands = Vec::new();
    for (index, (given, family)) in names.iter().enumerate() {
        let data =
            json!({"email": format!("u{index}@example.com"), "given_name": given, "family_name": family});
        commands.push(json!({"type": "CreateUser", "data": data}));
    }
    let answer = client.post("/api/v1/commands", commands.into()).await.expect(200);
    assert!(answer.json()["outcomes"].as_array().unwrap().iter().all(|outcome| outcome["status"] == 201));
    answer.token().to_owned()
}

#[tokio::test]
async fn a_name_is_found_by_beginnings_of_its_words_in_any_case() {
    let client = Rollcall::shared().new_tenant();
    let names = [
        ("Ada", "Lovelace"),
        ("Adalbert", "Stifter"),
        ("Grace Brewster", "Murray-Hopper"),
        ("Li", "Bo"),
        ("Alexandria", "Alexandersson"),
    ];
    let token = people(&client, &names).await;
    for (sought, given) in [
        ("ada", &["Ada", "Adalbert"][..]),
        ("ADA", &["Ada", "Adalbert"]),
        ("a", &["Ada", "Adalbert", "Alexandria"]),
        ("ad", &["Ada", "Adalbert"]),
        ("adal", &["Adalbert"]),
        ("ada lov", &["Ada"]),
        ("lovelace ada", &["Ada"]),
        ("  lov   a ", &["Ada"]),
        ("ada lovelaces", &[]),
        ("da", &[]),
        ("hopper", &["Grace Brewster"]),
        ("murray-hop g b", &["Grace Brewster"]),
        ("li", &["Li"]),
        ("b", &["Grace Brewster", "Li"]),
        ("alexandr", &["Alexandria"]),
        ("alexander", &["Alexandria"]),
        ("alexandri alexanders", &["Alexandria"]),
        ("alexandersson alexandersson", &["Alexandria"]),
        ("alexanderssons", &[]),
    ] {
        assert_eq!(found(&client, &token, sought).await, given, "{sought}");
    }
}

#[tokio::test]
async fn names_of_every_script_are_found() {
    let client = Rollcall::shared().new_tenant();
    let names = [
        ("Łukasz", "Żółć"),
        ("Ада", "Лавлейс"),
        ("小明", "王"),
        ("Νίκος", "Παπαδόπουλος"),
        ("E\u{301}milie", "du Châtelet"),
        ("أحمد", "السيد"),
    ];
    let token = people(&client, &names).await;
    for (sought, given) in [
        ("łuk", "Łukasz"),
        ("ŻÓŁ", "Łukasz"),
        ("ада лав", "Ада"),
        ("АДА", "Ада"),
        ("王", "小明"),
        ("小", "小明"),
        ("ΝΊΚΟΣ", "Νίκος"),
        ("παπαδόπουλος", "Νίκος"),
        ("émilie", "Émilie"),
        ("e\u{301}mi châ", "Émilie"),
        ("أحمد", "أحمد"),
    ] {
        assert_eq!(found(&client, &token, sought).await, [given], "{sought}");
    }
}

#[tokio::test]
async fn a_name_that_changed_is_found_by_the_new_one() {
    let client = Rollcall::shared().new_tenant();
    let id = client.create("a@example.com").await.expect(201).id();
    let changed = json!({"given_name": "Augusta", "display_name": "The Countess"});
    let token = client.patch(&format!("{USERS}/{id}"), changed).await.expect(200).token().to_owned();
    assert_eq!(found(&client, &token, "ada").await, [""; 0]);
    assert_eq!(found(&client, &token, "augusta count").await, ["Augusta"]);
}

#[tokio::test]
async fn a_rare_match_among_many_is_found_page_by_page() {
    let client = Rollcall::shared().new_tenant();
    let names: Vec<_> =
        (0..300).map(|i| if i % 100 == 99 { ("Adam", "Zed") } else { ("Ada", "Zorn") }).collect();
    let token = people(&client, &names).await;
    let mut next = String::new();
    let mut matches = 0;
    loop {
        let path = format!("{USERS}?name=adam+z&page_size=2{next}");
        let page = client.get_after(&path, &token).await.expect(200);
        matches += ids(&page).len();
        match page.json()["next_page_token"].as_str() {
            Some(token) => next = format!("&page_token={token}"),
            None => break,
        }
    }
    assert_eq!(matches, 3);
}
