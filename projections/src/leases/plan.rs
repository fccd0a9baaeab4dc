//! Who should hold what: a pure decision, the same for all who look at the same leases.

use uuid::Uuid;

use super::Epoch;

/// The leases of a projection, and who shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    pub units: Vec<Lease>,
    /// The living, in the order of their ids.
    pub members: Vec<Uuid>,
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
    /// There is none, or it is gone.
    Free,
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
    /// Units and the epochs at which they were seen.
    pub fn of(&self, units: &[u16]) -> Vec<(u16, Epoch)> {
        self.units.iter().filter(|lease| units.contains(&lease.unit)).map(|l| (l.unit, l.epoch)).collect()
    }

    /// The holders of units that froze.
    pub fn frozen(&self, units: &[u16]) -> Vec<Uuid> {
        let frozen = self.units.iter().filter(|l| units.contains(&l.unit) && l.state == State::Frozen);
        let mut holders: Vec<Uuid> = frozen.filter_map(|lease| lease.holder).collect();
        holders.dedup();
        holders
    }
}

/// A member's fair part: units divided by members, and one more for the first ones where that leaves a rest.
pub(super) fn plan(me: Uuid, leases: &Leases) -> Plan {
    let Some(rank) = leases.members.iter().position(|&member| member == me) else { return Plan::default() };
    let (units, members) = (leases.units.len(), leases.members.len());
    let fair = units / members + usize::from(rank < units % members);
    let mine: Vec<u16> =
        leases.units.iter().filter(|lease| lease.holder == Some(me)).map(|lease| lease.unit).collect();
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
        Leases { units: (0..units).map(lease).collect(), members: members.clone() }
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
    }

    #[test]
    fn who_is_not_among_the_living_does_nothing() {
        assert_eq!(plan(member(7), &leases(4, 2, |_| None)), Plan::default());
    }

    proptest! {
        /// However the leases lie: when each does as planned, one after the other, twice, all is held and spread evenly.
        #[test]
        fn any_state_becomes_fair(
            units in 1_u16..40,
            members in 1_u128..9,
            holders in prop::collection::vec(prop::option::of(1_u128..12), 40),
        ) {
            let mut now = leases(units, members, |unit| holders[usize::from(unit)]);
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
            let counts: Vec<usize> = now.members.iter().map(|&me| held(me)).collect();
            prop_assert_eq!(counts.iter().sum::<usize>(), usize::from(units));
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
        }
    }
}
