//! The members of a cluster: which of them serves whom, and what the loss of one breaks.

/// The most members of one cluster.
pub(crate) const MOST: usize = 7;

/// Where a connection goes: the member, and how often that one had died when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Serving {
    pub(crate) member: usize,
    deaths: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Members {
    count: usize,
    lost: [bool; MOST],
    deaths: [u64; MOST],
}

impl Members {
    pub(crate) fn new(count: usize) -> Self {
        Self { count: count.clamp(1, MOST), lost: [false; MOST], deaths: [0; MOST] }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Which member a client talks to that prefers `home`: the next one that lives. `None`: too few are left to decide
    /// anything.
    pub(crate) fn serving(&self, home: u64) -> Option<Serving> {
        let alive = (0..self.count).filter(|member| !self.lost[*member]).count();
        let home = (home % self.count as u64) as usize;
        let member = (0..self.count).map(|next| (home + next) % self.count).find(|member| !self.lost[*member])?;
        (alive * 2 > self.count).then_some(Serving { member, deaths: self.deaths[member] })
    }

    /// Whether what was connected so still is.
    pub(crate) fn still(&self, serving: Serving) -> bool {
        self.deaths[serving.member] == serving.deaths
    }

    /// Who leads: the first one that lives.
    pub(crate) fn leader(&self) -> Option<usize> {
        (0..self.count).find(|member| !self.lost[*member])
    }

    pub(crate) fn lose(&mut self, member: usize) {
        self.lost[member] = true;
        self.deaths[member] += 1;
    }

    pub(crate) fn restore(&mut self) {
        self.lost = [false; MOST];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_member_is_another_ones_work_until_too_few_are_left() {
        let mut members = Members::new(3);
        let before = members.serving(4).expect("a member");
        assert_eq!((before.member, members.leader()), (1, Some(0)));
        members.lose(1);
        assert!(!members.still(before));
        assert_eq!(members.serving(4).map(|serving| serving.member), Some(2));
        assert_eq!(members.leader(), Some(0));
        members.lose(0);
        assert_eq!((members.serving(4), members.leader()), (None, Some(2)));
        members.restore();
        assert_eq!(members.serving(4).map(|serving| serving.member), Some(1));
        assert!(!members.still(before));
    }
}
