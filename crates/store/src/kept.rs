//! Agents and tasks as they stand, remembered from one question to the next: nearly every token that is issued rests on one
//! that was issued a moment before.
//!
//! What is remembered is as good as what is read. Nobody is told a head ([`Store::head`]) before the change log was followed
//! up to it here and everything that it touches was forgotten; so whoever has read the head finds nothing that is older,
//! whichever replica changed it. What cannot be followed (a gap, another generation, a database that does not answer)
//! makes everything forgotten.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::{Grant, Id, Principal, Task, withdrawal::Target};

use crate::{
    Store,
    agents::Registration,
    changes::{ChangeKind, Head},
    engine::{Engine, Value},
    error::StoreError,
    seen,
    tasks::Standing,
};

/// The most that is remembered, of agents and of tasks each. Of more, what is remembered is begun anew.
const MAX_KEPT: usize = 4096;
/// How long something is remembered at the most. Nothing rests on it but what the log does not say: what somebody changes
/// past this program.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// The most changes that are followed. After more, everything is forgotten.
const MAX_FOLLOWED: u64 = 256;

/// What is remembered, as it stands at a position of the change log or later.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    generation: String,
    position: u64,
    agents: Shelf<(String, Id<Principal>), Registration>,
    tasks: Shelf<Id<Task>, Standing>,
}

#[derive(Debug)]
struct Shelf<K, V>(HashMap<K, (Instant, Arc<V>)>);

/// Where something was read: it stands so at this position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) generation: String,
    pub(crate) position: u64,
}

impl Store {
    /// The agent that `issuer` calls `id`, in whatever status it is: as it stands at the last head that was told by
    /// [`Store::head`], or later.
    ///
    /// # Errors
    /// When it has to be read, and the database does not answer.
    pub async fn known_agent(&self, issuer: &str, id: &Id<Principal>) -> Result<Option<Arc<Registration>>, StoreError> {
        let now = net::clock::monotonic();
        let key = (issuer.to_owned(), id.clone());
        if let Some(found) = self.kept.state().agents.get(&key, now) {
            return Ok(Some(found));
        }
        let seen = self.seen.known();
        let Some((registration, place)) = self.read_agent(issuer, id).await? else { return Ok(None) };
        self.is_no_older(&place, &seen)?;
        let registration = Arc::new(registration);
        self.kept.state().keep(&place, now, |state| &mut state.agents, key, &registration);
        Ok(Some(registration))
    }

    /// The task called `id` with its grant, in whatever status they are: as they stand at the last head that was told by
    /// [`Store::head`], or later.
    ///
    /// # Errors
    /// When it has to be read, and the database does not answer.
    pub async fn known_standing(&self, id: &Id<Task>) -> Result<Option<Arc<Standing>>, StoreError> {
        let now = net::clock::monotonic();
        if let Some(found) = self.kept.state().tasks.get(id, now) {
            return Ok(Some(found));
        }
        let seen = self.seen.known();
        let Some((standing, place)) = self.read_standing(id).await? else { return Ok(None) };
        self.is_no_older(&place, &seen)?;
        let standing = Arc::new(standing);
        self.kept.state().keep(&place, now, |state| &mut state.tasks, id.clone(), &standing);
        Ok(Some(standing))
    }

    /// What is read after something was `seen` is of no earlier place: a server that was the primary before may still
    /// answer on connections from then. From now on this place was seen too, so that whoever remembers what was read
    /// there is told where the database goes back behind it.
    fn is_no_older(&self, place: &Place, seen: &seen::Known) -> Result<(), StoreError> {
        if let Some(position) = seen.beyond(&place.generation, place.position) {
            return Err(StoreError::WentBack { head: place.position, position });
        }
        self.seen.note(&place.generation, place.position);
        Ok(())
    }
}

impl Kept {
    /// Forgets what was touched up to `head`: nobody may be told that before.
    pub(crate) async fn reach(&self, engine: &Engine, head: &Head) {
        let Some(after) = self.state().behind(head) else { return };
        let changes = followed(engine, after, head.position).await;
        self.state().take(after, changes, head);
    }

    /// Notes that the agent authenticated, which the log does not say.
    pub(crate) fn seen(&self, registration: &Registration, now: Timestamp) {
        let key = (registration.agent.issuer.clone(), registration.agent.id.clone());
        if let Some((_, kept)) = self.state().agents.0.get_mut(&key) {
            *kept = Arc::new(Registration { last_seen: Some(now), ..Registration::clone(kept) });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every change after a position, up to another; nothing where one of them cannot be had.
async fn followed(engine: &Engine, after: u64, to: u64) -> Option<Vec<ChangeKind>> {
    let all = to.checked_sub(after).filter(|all| *all <= MAX_FOLLOWED)?;
    let sql = "SELECT body FROM changes WHERE position > $1 AND position <= $2";
    let values = vec![Value::position(after), Value::position(to)];
    let rows = engine.rows("following the change log", sql, values).await.ok()?;
    // Positions have no gap: what is missing was forgotten, and nobody knows what it was.
    if u64::try_from(rows.len()) != Ok(all) {
        return None;
    }
    rows.iter().map(|row| row.json(0).ok()).collect()
}

impl State {
    /// The position that has to be followed from, where there is anything to forget.
    fn behind(&mut self, head: &Head) -> Option<u64> {
        if self.generation != head.generation {
            self.begin(head);
            return None;
        }
        if head.position <= self.position {
            // Another question that began later was faster.
            return None;
        }
        if self.agents.0.is_empty() && self.tasks.0.is_empty() {
            self.position = head.position;
            return None;
        }
        Some(self.position)
    }

    /// Nothing is remembered at `head`.
    fn begin(&mut self, head: &Head) {
        self.clear();
        (self.generation, self.position) = (head.generation.clone(), head.position);
    }

    fn take(&mut self, after: u64, changes: Option<Vec<ChangeKind>>, head: &Head) {
        // Somebody else may have begun anew meanwhile, or come further.
        let goes_on = self.generation == head.generation && self.position >= after;
        match changes.filter(|_| goes_on) {
            Some(changes) => changes.iter().for_each(|change| self.touch(change)),
            None => self.clear(),
        }
        if goes_on {
            self.position = self.position.max(head.position);
        } else {
            self.begin(head);
        }
    }

    /// Remembers `value`, which was read at `place`, unless something that touched it may have been followed since.
    fn keep<K: Eq + Hash, V>(
        &mut self,
        place: &Place,
        now: Instant,
        shelf: impl FnOnce(&mut Self) -> &mut Shelf<K, V>,
        key: K,
        value: &Arc<V>,
    ) {
        if place.generation == self.generation && place.position >= self.position {
            shelf(self).put(key, Arc::clone(value), now);
        }
    }

    /// Forgets what `change` is about.
    fn touch(&mut self, change: &ChangeKind) {
        match change {
            ChangeKind::AgentRegistered(agent) | ChangeKind::AgentChanged(agent) => {
                self.forget_agent(&agent.issuer, &agent.id);
            }
            ChangeKind::GrantCreated(grant) | ChangeKind::GrantChanged(grant) => self.forget_grant(&grant.id),
            ChangeKind::GrantWithdrawn { id } => self.forget_grant(id),
            ChangeKind::TaskStarted(task) | ChangeKind::TaskChanged(task) => self.forget_task(&task.id),
            ChangeKind::StageChanged { id, .. } | ChangeKind::TaskEnded { id, .. } => self.forget_task(id),
            ChangeKind::Withdrawal(withdrawal) => self.withdraw(&withdrawal.target),
            ChangeKind::JoinTokenCreated(_)
            | ChangeKind::JoinTokenWithdrawn { .. }
            | ChangeKind::SidecarEnrolled(_)
            | ChangeKind::SidecarChanged(_)
            | ChangeKind::SidecarRemoved { .. } => {}
            // Seldom, and whatever is new.
            _ => self.clear(),
        }
    }

    /// Forgets what ends with `target`, as `withdrawals` ends it.
    fn withdraw(&mut self, target: &Target) {
        match target {
            Target::Task { id } => self.forget_task(id),
            Target::Grant { id } => self.forget_grant(id),
            Target::Agent { issuer, id } => self.forget_agent(issuer, id),
            Target::Run { id } => self.tasks.forget(|standing| standing.task.run == *id),
            Target::Tenant { id } => self.tasks.forget(|standing| standing.task.tenant == *id),
            Target::User { issuer, id } => self.tasks.forget(|standing| {
                let user = &standing.grant.grant.user;
                user.issuer == *issuer && user.id == *id
            }),
            Target::Session { issuer, sid } => self.tasks.forget(|standing| {
                standing.task.session.as_ref() == Some(sid) && standing.grant.grant.user.issuer == *issuer
            }),
            Target::Instance { .. } | Target::Token { .. } => {}
        }
    }

    fn forget_agent(&mut self, issuer: &str, id: &Id<Principal>) {
        self.agents.0.remove(&(issuer.to_owned(), id.clone()));
    }

    fn forget_grant(&mut self, id: &Id<Grant>) {
        self.tasks.forget(|standing| standing.grant.grant.id == *id);
    }

    fn forget_task(&mut self, id: &Id<Task>) {
        self.tasks.0.remove(id);
    }

    fn clear(&mut self) {
        self.agents.0.clear();
        self.tasks.0.clear();
    }
}

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V> Shelf<K, V> {
    fn get(&self, key: &K, now: Instant) -> Option<Arc<V>> {
        self.0.get(key).filter(|(since, _)| is_young(*since, now)).map(|(_, value)| Arc::clone(value))
    }

    fn put(&mut self, key: K, value: Arc<V>, now: Instant) {
        if self.0.len() >= MAX_KEPT {
            self.0.retain(|_, (since, _)| is_young(*since, now));
        }
        if self.0.len() >= MAX_KEPT {
            self.0.clear();
        }
        self.0.insert(key, (now, value));
    }

    fn forget(&mut self, touched: impl Fn(&V) -> bool) {
        self.0.retain(|_, (_, value)| !touched(value));
    }
}

fn is_young(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < KEPT_FOR
}

#[cfg(test)]
mod tests {
    use model::{Agent, AgentStatus};

    use super::*;

    fn head(generation: &str, position: u64) -> Head {
        Head { position, generation: generation.to_owned(), began: Timestamp::UNIX_EPOCH }
    }

    fn agent(name: &str) -> Agent {
        Agent {
            id: Id::new(name).unwrap(),
            issuer: "https://a.example".to_owned(),
            owner: "dana".to_owned(),
            actions: [Id::new("orders.read").unwrap()].into(),
            tenants: [Id::new("acme").unwrap()].into(),
            status: AgentStatus::Active,
        }
    }

    fn registration(name: &str) -> Arc<Registration> {
        let registered = Timestamp::UNIX_EPOCH;
        let (description, credentials, last_seen) = (None, Vec::new(), None);
        Arc::new(Registration { agent: agent(name), description, credentials, registered, last_seen, as_of: 0 })
    }

    fn key(name: &str) -> (String, Id<Principal>) {
        (agent(name).issuer, agent(name).id)
    }

    impl State {
        /// The agent was read where the database was at `position`.
        fn read(&mut self, name: &str, generation: &str, position: u64, now: Instant) {
            let place = Place { generation: generation.to_owned(), position };
            self.keep(&place, now, |state| &mut state.agents, key(name), &registration(name));
        }

        fn has(&self, name: &str, now: Instant) -> bool {
            self.agents.get(&key(name), now).is_some()
        }
    }

    /// Two agents, as they stand at 5.
    fn at_five(now: Instant) -> State {
        let mut state = State::default();
        assert_eq!(state.behind(&head("one", 5)), None);
        for name in ["a", "b"] {
            state.read(name, "one", 5, now);
        }
        state
    }

    #[test]
    fn what_a_change_touches_is_forgotten_and_the_rest_is_not() {
        let now = net::clock::monotonic();
        let mut state = at_five(now);
        assert_eq!(state.behind(&head("one", 6)), Some(5));
        // Until it is known what the change was, nobody was told of it; what was read before it counts till then alone.
        assert!(state.has("a", now));
        state.take(5, Some(vec![ChangeKind::AgentChanged(agent("a"))]), &head("one", 6));
        assert!(!state.has("a", now) && state.has("b", now));
        state.read("a", "one", 5, now);
        assert!(!state.has("a", now), "it was read before the change");
        state.read("a", "one", 6, now);
        assert!(state.has("a", now));
        // One that was slower brings nothing back, and takes nothing back either.
        assert_eq!(state.behind(&head("one", 5)), None);
        assert_eq!((state.position, state.has("a", now)), (6, true));
    }

    #[test]
    fn what_cannot_be_followed_makes_everything_forgotten() {
        let now = net::clock::monotonic();
        let mut state = at_five(now);
        state.take(5, None, &head("one", 9));
        assert!(!state.has("a", now) && !state.has("b", now) && state.position == 9);
        let mut state = at_five(now);
        assert_eq!(state.behind(&head("two", 5)), None);
        assert!(!state.has("a", now));
        state.read("a", "one", 7, now);
        assert!(!state.has("a", now), "it was read in another life of the database");
        // Somebody else began anew while the changes were read.
        state.read("b", "two", 5, now);
        state.take(5, Some(Vec::new()), &head("one", 6));
        assert!(!state.has("b", now));
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_in_time() {
        let now = net::clock::monotonic();
        let mut state = at_five(now);
        assert!(!state.has("a", now + KEPT_FOR));
        for number in 0..=MAX_KEPT {
            state.read(&format!("agent-{number}"), "one", 5, now);
        }
        assert!(state.agents.0.len() <= MAX_KEPT && state.has(&format!("agent-{MAX_KEPT}"), now));
    }
}
