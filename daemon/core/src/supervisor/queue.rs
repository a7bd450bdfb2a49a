//! Who may run: a bounded number of slots, a first-in-first-out queue, and slots that waiting parents lend.
//!
//! A run holds one slot from its grant to its end. A run that waits for its children lends its slot: first to queued
//! tasks below it, then to anybody. It takes the slot back without waiting, so there may be more holders than slots for
//! a while (overshoot); then nobody is granted one until it has passed.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::types::{TaskKey, Timestamp};

/// The place in the queue of a task that is submitted at `now`: microseconds since 1970, so that the order is durable
/// without a counter.
pub(super) fn order_at(now: Timestamp) -> u64 {
    u64::try_from(now.as_microsecond()).unwrap_or(0)
}

/// The slots of a daemon. Pure bookkeeping: the caller grants what [`Queue::next`] names.
#[derive(Debug, Default)]
pub(super) struct Queue {
    slots: usize,
    holders: HashSet<TaskKey>,
    lent: HashSet<TaskKey>,
    waiting: BTreeMap<u64, TaskKey>,
    orders: HashMap<TaskKey, u64>,
    last_order: u64,
}

impl Queue {
    /// A queue with this many slots.
    #[must_use]
    pub(super) fn new(slots: usize) -> Self {
        Self { slots, ..Self::default() }
    }

    /// Changes the number of slots; nobody loses one.
    pub(super) fn set_slots(&mut self, slots: usize) {
        self.slots = slots;
    }

    /// A number above all orders so far, and not below that of the time `now`.
    pub(super) fn next_order(&mut self, now: Timestamp) -> u64 {
        self.last_order = (self.last_order + 1).max(order_at(now));
        self.last_order
    }

    /// Queues a task at the place `order`; behind the last if the place is taken.
    pub(super) fn request(&mut self, key: TaskKey, order: u64) {
        if self.orders.contains_key(&key) || self.holders.contains(&key) {
            return;
        }
        let order = if self.waiting.contains_key(&order) { self.last_order + 1 } else { order };
        self.last_order = self.last_order.max(order);
        self.orders.insert(key.clone(), order);
        self.waiting.insert(order, key);
    }

    /// Gives the task a slot that it holds already in fact: a live run found at start.
    pub(super) fn occupy(&mut self, key: TaskKey) {
        self.forget_place(&key);
        self.holders.insert(key);
    }

    /// The task holds and wants nothing any more.
    pub(super) fn release(&mut self, key: &TaskKey) {
        self.forget_place(key);
        self.holders.remove(key);
        self.lent.remove(key);
    }

    /// A holder waits for its children.
    pub(super) fn lend(&mut self, key: &TaskKey) {
        if self.holders.contains(key) {
            self.lent.insert(key.clone());
        }
    }

    /// It has stopped waiting.
    pub(super) fn take_back(&mut self, key: &TaskKey) {
        self.lent.remove(key);
    }

    /// The task that gets a slot now, if one is free. `ancestors` names those above a task, nearest first.
    pub(super) fn next(&mut self, ancestors: impl Fn(&TaskKey) -> Vec<TaskKey>) -> Option<TaskKey> {
        if self.holders.len() - self.lent.len() >= self.slots {
            return None;
        }
        let below_lender = |key: &TaskKey| ancestors(key).iter().any(|above| self.lent.contains(above));
        let chosen =
            if self.lent.is_empty() { None } else { self.waiting.values().find(|key| below_lender(key)).cloned() };
        let key = chosen.or_else(|| self.waiting.values().next().cloned())?;
        self.occupy(key.clone());
        Some(key)
    }

    /// Place of a task from 1; 0: it does not wait.
    #[cfg(test)]
    pub(super) fn position(&self, key: &TaskKey) -> usize {
        self.orders.get(key).map_or(0, |order| self.waiting.range(..=order).count())
    }

    /// The waiting tasks in order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &TaskKey> {
        self.waiting.values()
    }

    /// Number of runs that count.
    #[must_use]
    pub(super) fn held(&self) -> usize {
        self.holders.len()
    }

    fn forget_place(&mut self, key: &TaskKey) {
        if let Some(order) = self.orders.remove(key) {
            self.waiting.remove(&order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> TaskKey {
        TaskKey::new("p".parse().expect("id"), format!("task-20260101-0000{n:02}-abc").parse().expect("id"))
    }

    fn none(_: &TaskKey) -> Vec<TaskKey> {
        Vec::new()
    }

    #[test]
    fn slots_are_granted_in_the_order_of_requests_and_positions_are_visible() {
        let mut queue = Queue::new(1);
        for n in 1..=3 {
            let order = queue.next_order(Timestamp::UNIX_EPOCH);
            queue.request(key(n), order);
        }
        assert_eq!(queue.next(none), Some(key(1)));
        assert_eq!(queue.next(none), None);
        assert_eq!((queue.position(&key(1)), queue.position(&key(2)), queue.position(&key(3))), (0, 1, 2));
        queue.release(&key(1));
        assert_eq!(queue.next(none), Some(key(2)));
        queue.release(&key(3));
        queue.release(&key(2));
        assert_eq!(queue.next(none), None);
    }

    #[test]
    fn a_lent_slot_goes_to_a_descendant_first_and_is_taken_back_with_overshoot() {
        let mut queue = Queue::new(1);
        queue.request(key(1), 1);
        assert_eq!(queue.next(none), Some(key(1)));
        queue.request(key(2), 2);
        queue.request(key(3), 3);
        queue.lend(&key(1));
        let above = |task: &TaskKey| if *task == key(3) { vec![key(1)] } else { Vec::new() };
        assert_eq!(queue.next(above), Some(key(3)), "the child, though another was first");
        assert_eq!(queue.next(above), None);
        queue.take_back(&key(1));
        assert_eq!(queue.held(), 2);
        queue.release(&key(3));
        assert_eq!(queue.next(above), None, "no grant while the slot is over-used");
        queue.release(&key(1));
        assert_eq!(queue.next(above), Some(key(2)));
    }

    #[test]
    fn a_second_request_of_the_same_task_changes_nothing() {
        let mut queue = Queue::new(0);
        queue.request(key(1), 5);
        queue.request(key(1), 9);
        queue.request(key(2), 5);
        assert_eq!((queue.position(&key(1)), queue.position(&key(2))), (1, 2));
    }
}
