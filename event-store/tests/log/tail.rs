//! The tail: news come by hint and by poll, and nobody reads past a hole.

use std::time::Duration;

use rollcall_event_store::{
    append::Expected,
    tail::{Error, Span, read_spans},
};

use crate::support::{Test, stream_in, wish};

async fn filled() -> Test {
    let test = Test::new().await;
    for partition in [2, 5] {
        wish(stream_in(partition, "user"), Expected::Fresh, 6).append(&test.log).await.unwrap();
    }
    test
}

fn span(partition: u16, after: u64, until: u64) -> Span {
    Span { partition, after, until }
}

#[tokio::test]
async fn spans_are_read_whole_by_partition_and_position() {
    let test = filled().await;
    let mut connection = test.superuser().await;
    let events = read_spans(&mut connection, &[span(2, 1, 4), span(5, 0, 2), span(9, 0, 0)]).await.unwrap();
    let places: Vec<_> = events.iter().map(|event| (event.partition, event.position)).collect();
    assert_eq!(places, [(2, 2), (2, 3), (2, 4), (5, 1), (5, 2)]);
}

#[tokio::test]
async fn a_hole_stops_whoever_reads() {
    let test = filled().await;
    test.execute(
        "ALTER TABLE log.events DISABLE TRIGGER events_are_immutable;
         DELETE FROM log.events WHERE partition = 5 AND position IN (3, 6)",
    )
    .await;
    let mut connection = test.superuser().await;
    let mut hole = async |spans: &[Span]| match read_spans(&mut connection, spans).await {
        Err(Error::Hole { partition, expected_after, found }) => Some((partition, expected_after, found)),
        Err(other) => panic!("{other:?}"),
        Ok(_) => None,
    };
    assert_eq!(hole(&[span(5, 0, 5)]).await, Some((5, 2, Some(4))));
    assert_eq!(hole(&[span(2, 0, 6), span(5, 1, 4)]).await, Some((5, 2, Some(4))));
    assert_eq!(hole(&[span(5, 2, 4)]).await, Some((5, 2, Some(4))), "at the beginning");
    assert_eq!(hole(&[span(5, 3, 6)]).await, Some((5, 5, None)), "at the end");
    assert_eq!(hole(&[span(5, 2, 3)]).await, Some((5, 2, None)), "nothing but a hole");
    assert_eq!(hole(&[span(2, 0, 7)]).await, Some((2, 6, None)), "past the head");
    assert_eq!(hole(&[span(5, 3, 5), span(2, 0, 6)]).await, None);
}

#[tokio::test]
async fn an_append_is_news_at_once_here_and_soon_elsewhere() {
    let test = Test::new().await;
    let other = test.another_log().await;
    let mut head = 0;
    // The last one after so long a pause that the poll has slowed down for want of news.
    for pause_ms in [0, 0, 3_000] {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let mut news = other.heads().news();
        news.borrow_and_update();
        let stream = stream_in(7, &format!("head {head}"));
        let appended = wish(stream, Expected::Fresh, 2).append(&test.log).await.unwrap();
        head += 2;
        assert_eq!(appended.position, head);
        assert_eq!(test.log.heads().position(7), head, "by hint");
        let told = async {
            while other.heads().position(7) < head {
                news.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(1), told).await.expect("by poll");
    }
}

#[tokio::test]
async fn what_a_process_remembers_of_its_appends_is_what_the_log_has() {
    let test = Test::new().await;
    let other = test.another_log().await;
    let mut connection = test.superuser().await;
    // More than are remembered, from two processes, with everything that an event may have.
    for round in 0_usize..120 {
        let wishes = (0..6).map(|n| {
            let log = if (round / 10 + n) % 5 == 0 { &other } else { &test.log };
            let stream = stream_in(n as u16 % 2, &format!("{round} {n}"));
            let mut wish = wish(stream, Expected::Fresh, (round + n) % 3 + 1);
            for event in &mut wish.0.events {
                event.personal = (n % 2 == 0).then(|| vec![7; n + 1]);
                event.payload = r#"{ "b":1.50, "a" : "\u00fc"}"#.to_owned();
                event.metadata = r#"{"actor" : "x"}"#.into();
            }
            wish.append(log)
        });
        let appended: Vec<_> =
            futures_util::future::join_all(wishes).await.into_iter().map(Result::unwrap).collect();
        for partition in 0..2 {
            let until =
                appended.iter().filter(|a| a.partition == partition).map(|a| a.position).max().unwrap();
            for events in [1, 5, 40, 600] {
                let spans = [span(partition, until.saturating_sub(events), until), span(9, 0, 0)];
                let remembered = test.log.read_spans(&mut connection, &spans).await.unwrap();
                let stored = read_spans(&mut connection, &spans).await.unwrap();
                assert_eq!(format!("{remembered:?}"), format!("{stored:?}"));
            }
        }
    }
}

#[tokio::test]
async fn a_log_that_opens_knows_the_heads() {
    let test = filled().await;
    let other = test.another_log().await;
    assert_eq!((other.heads().position(2), other.heads().position(5), other.heads().position(3)), (6, 6, 0));
}
