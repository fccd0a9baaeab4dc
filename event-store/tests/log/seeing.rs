//! What operators see: how far a reader is behind, and whose traces an event belongs to.

use rollcall_event_store::{append::Expected, tail::Span};

use crate::support::{Test, stream_in, wish};

/// Positions of a reader that has applied these.
fn applied(of: &[(u16, u64)]) -> Vec<u64> {
    let mut positions = vec![0; 16];
    of.iter().for_each(|(partition, position)| positions[usize::from(*partition)] = *position);
    positions
}

#[tokio::test]
async fn a_reader_is_behind_by_the_age_of_the_oldest_event_that_it_has_not_applied() {
    let test = Test::new().await;
    for partition in [2, 5] {
        wish(stream_in(partition, "user"), Expected::Fresh, 3).append(&test.log).await.unwrap();
    }
    test.execute(
        "ALTER TABLE log.events DISABLE TRIGGER events_are_immutable;
         UPDATE log.events SET recorded_at = clock_timestamp() - (1000 * partition - 100 * position) * interval '1 second'",
    )
    .await;
    // Ages: partition 2 has 1900, 1800, 1700; partition 5 has 4900, 4800, 4700.
    let readers = [
        applied(&[(2, 3), (5, 3)]),
        applied(&[(2, 1), (5, 3)]),
        applied(&[(2, 2), (5, 1)]),
        applied(&[]),
        // Ahead of what this process has heard of.
        applied(&[(2, 9), (5, 9)]),
    ];
    let seconds = test.log.lag_seconds(&readers).await.unwrap();
    let expected = [0.0, 1_800.0, 4_800.0, 4_900.0, 0.0];
    for (number, (found, expected)) in seconds.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() < 30.0 && (expected > 0.0 || *found == 0.0),
            "{number}: {seconds:?}"
        );
    }
    assert_eq!(test.log.lag_seconds(&[]).await.unwrap(), [0.0; 0]);
}

#[tokio::test]
async fn sampled_events_are_found_in_memory_and_in_the_log() {
    let test = Test::new().await;
    let ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
    let metadata = [
        r#"{"actor":"a"}"#.to_owned(),
        format!(r#"{{"actor":"a","traceparent":"00-{ids}-00"}}"#),
        format!(r#"{{"actor":"a","traceparent":"00-{ids}-01"}}"#),
        format!(r#"{{"actor":"a","traceparent":"00-{ids}-03"}}"#),
    ];
    for partition in [2, 5] {
        let mut wish = wish(stream_in(partition, "user"), Expected::Fresh, metadata.len());
        for (event, metadata) in wish.0.events.iter_mut().zip(&metadata) {
            event.metadata = metadata.as_str().into();
        }
        wish.append(&test.log).await.unwrap();
    }
    let spans = [Span { partition: 2, after: 0, until: 4 }, Span { partition: 5, after: 2, until: 3 }];
    let mut connection = test.superuser().await;
    for log in [&test.log, &test.another_log().await] {
        let traced = log.traced(&mut connection, &spans).await.unwrap();
        let found: Vec<_> =
            traced.iter().map(|event| (event.partition, event.position, &*event.metadata)).collect();
        let (third, fourth) = (metadata[2].as_str(), metadata[3].as_str());
        assert_eq!(found, [(2, 3, third), (2, 4, fourth), (5, 3, third)]);
    }
}
