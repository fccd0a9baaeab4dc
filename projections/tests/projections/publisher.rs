//! The publisher on a real nats-server: every event in order within its partition, whatever happens in between.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rollcall_event_store::{Log, adopt::adopt};
use rollcall_projections::{
    Progress,
    publisher::{Status, StreamError, compare},
};
use tokio::time::sleep;

use crate::{
    leases::until,
    nats::{Publishing, STREAM, Server, until_published, until_there_are},
    support::{PARTITIONS, PATIENCE, Test},
    users::{Users, seats},
};

/// Users in all partitions, each with a number of events.
async fn fill(test: &Test, users: &mut Users, rounds: std::ops::Range<u32>) {
    for round in rounds {
        for user in 0..12 {
            users.wish(&test.log, user, seats(round)).await;
        }
    }
}

#[tokio::test]
async fn every_event_is_published_once_and_in_order() {
    let (test, server) = (Test::new().await, Server::start().await);
    let mut users = Users::default();
    fill(&test, &mut users, 0..5).await;
    let publishing = Publishing::start(&test, &test.log, &server).await;
    test.wait(publishing.progress()).await;
    server.assert_published(&test).await;
    fill(&test, &mut users, 5..10).await;
    test.wait(publishing.progress()).await;
    server.assert_published(&test).await;
    assert_eq!(*publishing.status.borrow(), Status::Publishing);
    for partition in 0..PARTITIONS {
        let position = i64::try_from(test.log.heads().position(partition)).unwrap();
        assert_eq!(test.checkpoint("publisher", partition).await, position);
    }
    publishing.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn an_event_that_this_program_does_not_know_is_published_all_the_same() {
    let (test, server) = (Test::new().await, Server::start().await);
    let mut users = Users::default();
    fill(&test, &mut users, 0..3).await;
    test.forge(
        "UPDATE log.events SET event_type = 'Unheard of' WHERE sequence = 2;
         UPDATE log.events SET event_version = '999' WHERE sequence = 3",
    )
    .await;
    // A process that has no memory of what was there before.
    let publishing = Publishing::start(&test, &test.another_log().await, &server).await;
    test.wait(publishing.progress()).await;
    server.assert_published(&test).await;
    assert_eq!(*publishing.status.borrow(), Status::Publishing);
    publishing.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn what_was_published_before_a_checkpoint_was_lost_is_not_published_again() {
    let (test, server) = (Test::new().await, Server::start().await);
    let mut users = Users::default();
    fill(&test, &mut users, 0..4).await;
    for set_back in ["position / 2", "0", "greatest(position - 1, 0)"] {
        let publishing = Publishing::start(&test, &test.log, &server).await;
        test.wait(publishing.progress()).await;
        publishing.stop().await;
        let before = server.published().await.len();
        test.execute(&format!(
            "UPDATE projections.checkpoints SET position = {set_back} WHERE projection = 'publisher';
             UPDATE projections.published SET stream_sequence = (SELECT sum(position) FROM projections.checkpoints
                                                                 WHERE projection = 'publisher')"
        ))
        .await;
        // Longer than the server would notice by itself.
        sleep(Duration::from_millis(300)).await;
        let publishing = Publishing::start(&test, &test.log, &server).await;
        test.wait(publishing.progress()).await;
        assert_eq!(server.published().await.len(), before, "{set_back}");
        users.wish(&test.log, 3, seats(u32::try_from(before).unwrap() + 100)).await;
        test.wait(publishing.progress()).await;
        server.assert_published(&test).await;
        publishing.stop().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn where_the_stream_lost_its_last_messages_a_partition_that_has_none_is_not_published_from_its_beginning()
 {
    let (test, server) = (Test::new().await, Server::start().await);
    let mut users = Users::default();
    fill(&test, &mut users, 0..4).await;
    let publishing = Publishing::start(&test, &test.log, &server).await;
    test.wait(publishing.progress()).await;
    until_there_are(&test, &server).await;
    publishing.stop().await;
    // All messages of a partition have expired, and two more than the stream has are known to have been in it.
    let partition = users.0[&0].stream.partition(PARTITIONS);
    let mut stream = server.context().await.get_stream(STREAM).await.unwrap();
    stream.purge().filter(format!("rollcall.events.*.*.*.{partition}")).await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    let events = test.number("SELECT count(*) FROM log.events").await;
    assert!(state.messages + 2 < u64::try_from(events).unwrap(), "{state:?}");
    test.execute(&format!("UPDATE projections.published SET stream_sequence = {}", state.last_sequence + 2))
        .await;
    // Longer than the server would notice by itself.
    sleep(Duration::from_millis(300)).await;
    let publishing = Publishing::start(&test, &test.log, &server).await;
    until_published(&server, state.messages + 2).await;
    users.wish(&test.log, 0, seats(77)).await;
    test.wait(publishing.progress()).await;
    let head = test.log.heads().position(partition);
    until_published(&server, state.messages + 3).await;
    let now = stream.info().await.unwrap().state.clone();
    assert_eq!(now.messages, state.messages + 3);
    for (sequence, position) in (state.last_sequence + 1..=now.last_sequence).zip(head - 2..) {
        let message = stream.get_raw_message(sequence).await.unwrap();
        assert_eq!(message.headers.get("ce-position").unwrap().as_str(), position.to_string());
    }
    publishing.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_was_lost_is_filled_again_from_the_log() {
    let (test, server) = (Test::new().await, Server::start().await);
    let mut users = Users::default();
    fill(&test, &mut users, 0..3).await;
    let publishing = Publishing::start(&test, &test.log, &server).await;
    test.wait(publishing.progress()).await;
    // While it publishes …
    server.context().await.delete_stream(STREAM).await.unwrap();
    fill(&test, &mut users, 3..4).await;
    test.wait(publishing.progress()).await;
    server.assert_published(&test).await;
    publishing.stop().await;
    // … and while it does not.
    server.context().await.delete_stream(STREAM).await.unwrap();
    let publishing = Publishing::start(&test, &test.log, &server).await;
    test.wait(publishing.progress()).await;
    until_there_are(&test, &server).await;
    server.assert_published(&test).await;
    publishing.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_lost_stream_is_filled_again_although_nothing_new_happens() {
    let (test, server) = (Test::new().await, Server::start().await);
    let mut users = Users::default();
    fill(&test, &mut users, 0..2).await;
    let publishing = Publishing::start(&test, &test.log, &server).await;
    test.wait(publishing.progress()).await;
    server.context().await.delete_stream(STREAM).await.unwrap();
    until_there_are(&test, &server).await;
    server.assert_published(&test).await;
    publishing.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_of_another_log_is_left_alone() {
    let server = Server::start().await;
    let (owner, test) = (Test::new().await, Test::new().await);
    let mut users = Users::default();
    fill(&owner, &mut users, 0..2).await;
    let publishing = Publishing::start(&owner, &owner.log, &server).await;
    owner.wait(publishing.progress()).await;
    publishing.stop().await;

    fill(&test, &mut Users::default(), 0..3).await;
    let mut publishing = Publishing::start(&test, &test.log, &server).await;
    let refusal = publishing.refused().await;
    assert!(
        refusal.contains("another log") && refusal.contains(&owner.log.log_id().to_string()),
        "{refusal}"
    );
    server.assert_published(&owner).await;
    publishing.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_of_another_log_is_left_alone_even_where_it_has_the_same_length() {
    let (first, second) = (Server::start().await, Server::start().await);
    let (owner, test) = (Test::new().await, Test::new().await);
    for (test, server) in [(&test, &first), (&owner, &second)] {
        fill(test, &mut Users::default(), 0..2).await;
        let publishing = Publishing::start(test, &test.log, server).await;
        test.wait(publishing.progress()).await;
        publishing.stop().await;
    }
    // The service is told the wrong address.
    let mut publishing = Publishing::start(&test, &test.log, &second).await;
    let refusal = publishing.refused().await;
    assert!(refusal.contains("another log"), "{refusal}");
    second.assert_published(&owner).await;
    publishing.stop().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_ahead_of_the_log_halts_it_until_it_is_adopted() {
    let (test, server) = (Test::new().await, Server::start().await);
    let mut users = Users::default();
    fill(&test, &mut users, 0..3).await;
    let publishing = Publishing::start(&test, &test.log, &server).await;
    test.wait(publishing.progress()).await;
    publishing.stop().await;
    let before = server.published().await.len();
    test.log.close().await;
    restore(&test).await;

    let restored = test.another_log().await;
    assert_eq!(restored.halt(), None, "the database alone does not know");
    let mut publishing = Publishing::start(&test, &restored, &server).await;
    let refusal = publishing.refused().await;
    assert!(refusal.contains("ahead of the log"), "{refusal}");
    let halt = restored.halt().expect("nobody may write any more");
    assert!(halt.to_string().contains("found by the publisher"), "{halt}");
    assert_eq!(server.published().await.len(), before);
    publishing.stop().await;

    let new = adopt(&test.owner, restored.log_id()).await.unwrap();
    let adopted = test.restarted().await;
    let publishing = Publishing::start(&test, &adopted, &server).await;
    let mut users = Users::default();
    for user in 20..40 {
        users.wish(&adopted, user, seats(1)).await;
    }
    wait_for_heads(&adopted, publishing.progress()).await;
    server.assert_published_since(&test, before, new).await;
    publishing.stop().await;
    // What is told once is not told again, although what was beyond is still there.
    let publishing = Publishing::start(&test, &adopted, &server).await;
    users.wish(&adopted, 20, seats(2)).await;
    wait_for_heads(&adopted, publishing.progress()).await;
    server.assert_published_since(&test, before, new).await;
    publishing.stop().await;
    server.stop().await;
}

/// As after a restore to an earlier point.
async fn restore(test: &Test) {
    test.forge(
        "DELETE FROM log.events WHERE position > 4;
         UPDATE projections.checkpoints SET position = 2; UPDATE projections.published SET stream_sequence = 3",
    )
    .await;
}

async fn wait_for_heads(log: &Log, progress: &Progress) {
    let heads = (0..PARTITIONS).map(|partition| (partition, log.heads().position(partition)));
    assert!(progress.wait(heads, PATIENCE).await, "the publisher did not get there");
}

#[tokio::test]
async fn a_restored_log_that_was_written_to_is_known_by_its_events() {
    let (test, server) = (Test::new().await, Server::start().await);
    fill(&test, &mut Users::default(), 0..3).await;
    let publishing = Publishing::start(&test, &test.log, &server).await;
    test.wait(publishing.progress()).await;
    publishing.stop().await;
    let before = server.published().await.len();
    test.log.close().await;
    restore(&test).await;

    // The log is longer now than NATS has seen, but other events stand at the same positions.
    let restored = test.another_log().await;
    let mut users = Users::default();
    for round in 0..6 {
        for user in 20..40 {
            users.wish(&restored, user, seats(round)).await;
        }
    }
    let mut publishing = Publishing::start(&test, &restored, &server).await;
    let refusal = publishing.refused().await;
    assert!(refusal.contains("another event than the log"), "{refusal}");
    assert!(restored.halt().is_some());
    assert_eq!(server.published().await.len(), before);
    publishing.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn who_starts_beside_a_stream_that_is_ahead_takes_no_command() {
    let (test, server) = (Test::new().await, Server::start().await);
    // A stream that is not there says nothing.
    compare(&server.client().await, &test.log).await.unwrap();
    fill(&test, &mut Users::default(), 0..3).await;
    let publishing = Publishing::start(&test, &test.log, &server).await;
    test.wait(publishing.progress()).await;
    publishing.stop().await;
    compare(&server.client().await, &test.log).await.unwrap();
    assert_eq!(test.log.halt(), None);
    test.log.close().await;
    restore(&test).await;
    let restored = test.another_log().await;
    let error = compare(&server.client().await, &restored).await.unwrap_err();
    assert!(matches!(error, StreamError::Ahead { .. }), "{error:?}");
    assert!(restored.halt().is_some());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn two_publishers_at_once_leave_nothing_out_and_nothing_in_disorder() {
    let (test, server) = (Test::new().await, Server::start().await);
    let other = test.another_log().await;
    let publishers =
        [Publishing::start(&test, &test.log, &server).await, Publishing::start(&test, &other, &server).await];
    // Each process hears of its own appends first, so that the two never have quite the same news.
    let mut lives = Vec::new();
    for life in 0..8_u8 {
        let log = if life % 2 == 0 { test.log.clone() } else { other.clone() };
        lives.push(tokio::spawn(async move {
            let mut users = Users::default();
            for round in 0..60 {
                for user in 0..4 {
                    users.wish(&log, life * 4 + user, seats(round)).await;
                }
                // Now and then both are idle, and begin again at the same time.
                sleep(Duration::from_millis(if round % 6 == 0 { 600 } else { 5 })).await;
            }
        }));
    }
    for life in join_all(lives).await {
        life.unwrap();
    }
    until_there_are(&test, &server).await;
    server.assert_published(&test).await;
    for publisher in publishers {
        publisher.stop().await;
    }
    server.stop().await;
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const HELD: &str = "SELECT count(holder) FROM projections.leases WHERE projection = 'publisher'";
const DECLINED: &str = "SELECT count(*) FROM projections.members WHERE declines = '{publisher_1}'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_reach_nats_leaves_publishing_to_somebody_who_does() {
    let (test, server) = (Test::new().await, Server::start().await);
    let mut users = Users::default();
    fill(&test, &mut users, 0..2).await;
    let cut_off = Publishing::through(server.client_of_nobody(free_port()).await, &test, &test.log).await;
    until(&test, HELD, 1).await;
    let other = Publishing::start(&test, &test.another_log().await, &server).await;
    let begun = Instant::now();
    test.wait(other.progress()).await;
    assert!(begun.elapsed() < Duration::from_secs(13), "the lease was let go of after {:?}", begun.elapsed());
    assert!(matches!(&*cut_off.status.borrow(), Status::Failing(_)), "it says nothing of it");
    // It could take the work again, but does not take it away.
    until(&test, DECLINED, 0).await;
    let epoch = "SELECT epoch FROM projections.leases WHERE projection = 'publisher'";
    let before = test.number(epoch).await;
    sleep(Duration::from_secs(1)).await;
    fill(&test, &mut users, 2..3).await;
    test.wait(other.progress()).await;
    assert_eq!(test.number(epoch).await, before);
    server.assert_published(&test).await;
    other.stop().await;
    until(&test, HELD, 1).await;
    cut_off.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_nobody_else_it_is_published_to_as_soon_as_nats_is_back() {
    let (test, server) = (Test::new().await, Server::start().await);
    fill(&test, &mut Users::default(), 0..2).await;
    let port = free_port();
    let publishing = Publishing::through(server.client_of_nobody(port).await, &test, &test.log).await;
    until(&test, DECLINED, 1).await;
    // Longer than letting go would take.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(test.number(HELD).await, 1, "nobody tries any more");
    server.listen_at(port).await;
    let begun = Instant::now();
    until_there_are(&test, &server).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "publishing was resumed after {:?}", begun.elapsed());
    until(&test, DECLINED, 0).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it declines what goes well");
    server.assert_published(&test).await;
    publishing.stop().await;
    server.stop().await;
}
