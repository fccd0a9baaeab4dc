//! Who should hold what: a pure decision, the same for all who look at the same leases.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Epoch;

/// The leases of a projection, and who shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    pub units: Vec<Lease>,
    /// The living, in the order of their ids.
    pub members: Vec<Uuid>,
    /// Those of them that would rather leave the work to others: they could not do it.
    pub declining: Vec<Uuid>,
    /// Nobody is to work on it for now.
    pub paused: bool,
    /// The version has yet to come as far as the log for the first time.
    pub filling: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub unit: u16,
    pub epoch: Epoch,
    pub holder: Option<Uuid>,
    pub state: State,
}

/// How it is with a lease's holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is one, and it lives.
    Held,
    /// There is none, or its session has ended and it has not come back yet.
    Free,
    /// It has not been heard of for too long, and its session has ended; other sessions of it may be there, and hold locks.
    Gone,
    /// It has not been heard of for too long, but its session is there: it froze, and may hold locks.
    Frozen,
}

/// What a member is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub take: Vec<u16>,
    pub let_go: Vec<u16>,
}

impl Leases {
    /// The living who share the work: those who do not decline it or, where there is nobody else, all of them. So work is
    /// declined only where somebody else may have more luck with it, and is tried again and again where nobody has.
    fn sharing(&self) -> Vec<Uuid> {
        let willing: Vec<Uuid> =
            self.members.iter().copied().filter(|member| !self.declining.contains(member)).collect();
        if willing.is_empty() { self.members.clone() } else { willing }
    }

    fn held_by(&self, member: Uuid) -> impl Iterator<Item = u16> {
        self.units.iter().filter(move |lease| lease.holder == Some(member)).map(|lease| lease.unit)
    }

    /// Units and the epochs at which they were seen.
    pub fn of(&self, units: &[u16]) -> Vec<(u16, Epoch)> {
        self.units.iter().filter(|lease| units.contains(&lease.unit)).map(|l| (l.unit, l.epoch)).collect()
    }

    /// The holders of units that froze.
    pub fn frozen(&self, units: &[u16]) -> Vec<Uuid> {
        self.holders(units, |state| state == State::Frozen)
    }

    /// The holders of units that have not been heard of for too long.
    pub fn silent(&self, units: &[u16]) -> Vec<Uuid> {
        self.holders(units, |state| matches!(state, State::Frozen | State::Gone))
    }

    fn holders(&self, units: &[u16], that: impl Fn(State) -> bool) -> Vec<Uuid> {
        let those = self.units.iter().filter(|l| units.contains(&l.unit) && that(l.state));
        let holders: BTreeSet<Uuid> = those.filter_map(|lease| lease.holder).collect();
        holders.into_iter().collect()
    }
}

/// A member's fair part: units divided by members, and where that leaves a rest, one more for as many members: for those
/// who have one more already, so that nothing is handed around for nothing, and then for the first ones.
pub(super) fn plan(me: Uuid, leases: &Leases) -> Plan {
    if !leases.members.contains(&me) {
        return Plan::default();
    }
    let mine: Vec<u16> = leases.held_by(me).collect();
    if leases.paused {
        return Plan { take: Vec::new(), let_go: mine };
    }
    let mut sharing = leases.sharing();
    let (each, rest) = (leases.units.len() / sharing.len(), leases.units.len() % sharing.len());
    // Stable: in the order of their ids otherwise.
    sharing.sort_by_key(|&member| leases.held_by(member).count() <= each);
    let Some(rank) = sharing.iter().position(|&member| member == me) else {
        return Plan { take: Vec::new(), let_go: mine };
    };
    let fair = each + usize::from(rank < rest);
    if mine.len() >= fair {
        return Plan { take: Vec::new(), let_go: mine[fair..].to_vec() };
    }
    let free = leases.units.iter().filter(|lease| lease.holder != Some(me) && lease.state != State::Held);
    Plan { take: free.map(|lease| lease.unit).take(fair - mine.len()).collect(), let_go: Vec::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn leases(units: u16, members: u128, holder: impl Fn(u16) -> Option<u128>) -> Leases {
        let members: Vec<Uuid> = (1..=members).map(member).collect();
        let lease = |unit| {
            let holder = holder(unit).map(member);
            let state = match holder {
                Some(holder) if members.contains(&holder) => State::Held,
                _ => State::Free,
            };
            Lease { unit, epoch: 1, holder, state }
        };
        Leases { units: (0..units).map(lease).collect(), members: members.clone(), ..Leases::default() }
    }

    #[test]
    fn a_member_alone_takes_everything() {
        let plan = plan(member(1), &leases(16, 1, |_| None));
        assert_eq!(plan, Plan { take: (0..16).collect(), let_go: vec![] });
    }

    #[test]
    fn a_member_that_comes_is_made_room_for() {
        let held = leases(16, 3, |_| Some(1));
        assert_eq!(plan(member(1), &held).let_go.len(), 10);
        assert_eq!(plan(member(2), &held), Plan::default());
    }

    #[test]
    fn what_a_frozen_member_held_is_taken_and_its_sessions_are_ended() {
        let mut held = leases(4, 1, |unit| Some(if unit < 2 { 1 } else { 9 }));
        for lease in &mut held.units[2..] {
            lease.state = State::Frozen;
        }
        assert_eq!(plan(member(1), &held).take, [2, 3]);
        assert_eq!(held.frozen(&[2, 3]), [member(9)]);
        assert!(held.frozen(&[0]).is_empty());
        (held.units[3].holder, held.units[3].state) = (Some(member(8)), State::Gone);
        assert_eq!(plan(member(1), &held).take, [2, 3]);
        assert_eq!(
            (held.frozen(&[2, 3]), held.silent(&[2, 3])),
            (vec![member(9)], vec![member(8), member(9)])
        );
    }

    #[test]
    fn who_is_not_among_the_living_does_nothing() {
        assert_eq!(plan(member(7), &leases(4, 2, |_| None)), Plan::default());
    }

    #[test]
    fn what_is_paused_is_let_go_of_and_taken_by_nobody() {
        let mut held = leases(4, 2, |unit| (unit < 2).then_some(1));
        held.paused = true;
        assert_eq!(plan(member(1), &held), Plan { take: vec![], let_go: vec![0, 1] });
        assert_eq!(plan(member(2), &held), Plan::default());
    }

    #[test]
    fn who_works_is_not_disturbed_by_one_who_would_do_as_well() {
        let held = leases(1, 2, |_| Some(2));
        assert_eq!([plan(member(1), &held), plan(member(2), &held)], [Plan::default(), Plan::default()]);
    }

    #[test]
    fn who_declines_makes_room_where_somebody_else_is_willing_and_goes_on_where_nobody_is() {
        let mut held = leases(1, 2, |_| Some(1));
        held.declining = vec![member(1)];
        assert_eq!(plan(member(1), &held).let_go, [0]);
        (held.units[0].holder, held.units[0].state) = (None, State::Free);
        assert_eq!([plan(member(1), &held).take, plan(member(2), &held).take], [vec![], vec![0]]);
        held.declining = held.members.clone();
        assert_eq!(plan(member(1), &held).take, [0]);
        let mut alone = leases(1, 1, |_| Some(1));
        alone.declining = alone.members.clone();
        assert_eq!(plan(member(1), &alone), Plan::default());
    }

    proptest! {
        /// However the leases lie: when each does as planned, one after the other, twice, all is held and spread evenly.
        #[test]
        fn any_state_becomes_fair(
            units in 1_u16..40,
            members in 1_u128..9,
            holders in prop::collection::vec(prop::option::of(1_u128..12), 40),
            declines in prop::collection::vec(any::<bool>(), 8),
        ) {
            let mut now = leases(units, members, |unit| holders[usize::from(unit)]);
            now.declining = now.members.iter().zip(declines).filter(|(_, declines)| *declines).map(|(&m, _)| m).collect();
            for _ in 0..2 {
                for me in now.members.clone() {
                    let Plan { take, let_go } = plan(me, &now);
                    for lease in &mut now.units {
                        if take.contains(&lease.unit) {
                            prop_assert_ne!(lease.state, State::Held, "taken from a living member");
                            (lease.holder, lease.state) = (Some(me), State::Held);
                        }
                        if let_go.contains(&lease.unit) {
                            (lease.holder, lease.state) = (None, State::Free);
                        }
                    }
                }
            }
            let held = |me| now.units.iter().filter(|lease| lease.holder == Some(me)).count();
            for &me in &now.members {
                prop_assert_eq!(plan(me, &now), Plan::default(), "it does not come to rest");
            }
            let counts: Vec<usize> = now.sharing().into_iter().map(held).collect();
            prop_assert_eq!(counts.iter().sum::<usize>(), usize::from(units));
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
        }
    }
}
