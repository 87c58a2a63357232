//! One question for everybody who asks it at once: who comes while it is under way waits for the next, so that an answer
//! is always to a question that was put after whoever gets it came.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Mutex, MutexGuard};

use crate::error::StoreError;

/// How long somebody waits for others' questions. After that they ask by themselves: one connection that hangs shall not
/// keep everybody.
const PATIENCE: Duration = Duration::from_secs(1);

/// The last answer, and who waits for the next.
#[derive(Debug)]
pub(crate) struct Together<T> {
    /// How many questions have begun.
    begun: AtomicU64,
    /// Held while a question is under way.
    last: Mutex<Option<Answered<T>>>,
}

#[derive(Debug)]
struct Answered<T> {
    /// Which question it was, counted from 1.
    number: u64,
    answer: Result<Arc<T>, StoreError>,
}

impl<T> Default for Together<T> {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), last: Mutex::new(None) }
    }
}

impl<T> Together<T> {
    /// The answer to a question that begins after this was called: to somebody else's, or to `question`.
    pub(crate) async fn ask(
        &self,
        question: impl AsyncFnOnce() -> Result<T, StoreError>,
    ) -> Result<Arc<T>, StoreError> {
        let came = self.begun.load(Ordering::SeqCst);
        let Some(mut last) = self.turn().await else { return question().await.map(Arc::new) };
        if let Some(Answered { answer, .. }) = last.as_ref().filter(|last| last.number > came) {
            return answer.clone();
        }
        // Counted before it is put: whoever comes later has to see that it began without them.
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = question().await.map(Arc::new);
        *last = Some(Answered { number, answer: answer.clone() });
        answer
    }

    async fn turn(&self) -> Option<MutexGuard<'_, Option<Answered<T>>>> {
        match self.last.try_lock() {
            Ok(free) => Some(free),
            Err(_) => tokio::time::timeout(PATIENCE, self.last.lock()).await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Notify, Semaphore};

    use super::*;

    /// Something that changes, and questions about it that take as long as they are let.
    struct World {
        together: Together<u64>,
        state: AtomicU64,
        asked: AtomicU64,
        begun: Notify,
        go: Semaphore,
    }

    /// The state in which nothing answers.
    const GONE: u64 = 13;

    impl World {
        fn at(state: u64) -> Self {
            let (asked, begun, go) = (AtomicU64::new(0), Notify::new(), Semaphore::new(0));
            Self { together: Together::default(), state: AtomicU64::new(state), asked, begun, go }
        }

        async fn ask(&self) -> Result<u64, String> {
            let question = async || {
                self.asked.fetch_add(1, Ordering::SeqCst);
                // Read at once and told later: an answer may be old by the time it comes.
                let state = self.state.load(Ordering::SeqCst);
                self.begun.notify_one();
                self.go.acquire().await.unwrap().forget();
                match state {
                    GONE => Err(StoreError::Unavailable { doing: "asking", cause: "gone".to_owned() }),
                    state => Ok(state),
                }
            };
            self.together.ask(question).await.map(|answer| *answer).map_err(|error| error.to_string())
        }

        /// One question that begins now, and three that come while it is under way, after the state became `then`.
        async fn one_and_three(&self, then: u64) -> (Result<u64, String>, [Result<u64, String>; 3]) {
            let three = async {
                self.begun.notified().await;
                self.state.store(then, Ordering::SeqCst);
                tokio::join!(biased; self.ask(), self.ask(), self.ask(), async { self.go.add_permits(2) })
            };
            let (first, (one, two, three, ())) = tokio::join!(biased; self.ask(), three);
            (first, [one, two, three])
        }
    }

    #[tokio::test]
    async fn who_comes_while_a_question_is_under_way_shares_the_next_and_never_that_one() {
        let world = World::at(1);
        assert_eq!(world.one_and_three(2).await, (Ok(1), [Ok(2), Ok(2), Ok(2)]));
        assert_eq!(world.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_those_who_waited_for_that_question_and_to_nobody_later() {
        let world = World::at(1);
        let (first, later) = world.one_and_three(GONE).await;
        assert!(first.is_ok() && later.iter().all(Result::is_err), "{later:?}");
        world.state.store(3, Ordering::SeqCst);
        world.go.add_permits(1);
        assert_eq!((world.ask().await, world.asked.load(Ordering::SeqCst)), (Ok(3), 3));
    }

    #[tokio::test]
    async fn a_question_that_hangs_or_is_given_up_keeps_nobody_else() {
        let world = World::at(1);
        let hangs = world.ask();
        tokio::select! {
            biased;
            answer = hangs => panic!("{answer:?}"),
            answer = async {
                // Its own: that of the other has come by then, where one may begin.
                world.together.ask(async || Ok(7)).await
            } => assert_eq!(*answer.unwrap(), 7),
        }
        // The other was dropped with its question.
        world.go.add_permits(1);
        assert_eq!(world.ask().await, Ok(1));
    }
}
