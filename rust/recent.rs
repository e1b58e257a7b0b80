//! Working memory for the models that a thread saw last.
//!
//! A thread that serves several models in turn knows the classes of each, as far as there are few enough of them. A model beyond that gets
//! the memory of another one, names and all, and only has to find its classes anew.

use crate::memo::Holder;
use crate::reduction::Reduction;

/// Models whose memory is kept. All of them together take what [`Reduction::are_small`] allows at most.
const MOST_MODELS: usize = 8;

/// The memory of each model that was seen last; `M` and `C` as in [`Reduction`].
pub(crate) struct Recent<M, C> {
    reductions: Vec<Reduction<M, C>>,
    /// The place that was used last.
    last: usize,
    /// How often a model had none.
    replaced: usize,
}

impl<M, C> Default for Recent<M, C> {
    fn default() -> Self {
        Self { reductions: Vec::new(), last: 0, replaced: 0 }
    }
}

impl<M, C> Recent<M, C> {
    /// The memory of a model of an aggregator.
    #[inline]
    pub(crate) fn get(&mut self, aggregator: Holder, model_id: &str) -> &mut Reduction<M, C> {
        if !self.is_at(self.last, aggregator, model_id) {
            // Models that come in turn have their places in turn.
            let next = if self.last + 1 < self.reductions.len() { self.last + 1 } else { 0 };
            self.last = if self.is_at(next, aggregator, model_id) { next } else { self.place(aggregator, model_id) };
        }
        &mut self.reductions[self.last]
    }

    #[inline]
    fn is_at(&self, place: usize, aggregator: Holder, model_id: &str) -> bool {
        self.reductions.get(place).is_some_and(|reduction| reduction.is_of(aggregator, model_id))
    }

    /// The place of a model, wherever it is.
    #[inline(never)]
    fn place(&mut self, aggregator: Holder, model_id: &str) -> usize {
        let found = (0..self.reductions.len()).find(|&place| self.is_at(place, aggregator, model_id));
        found.unwrap_or_else(|| self.give(aggregator, model_id))
    }

    /// Gives memory to a model that has none; returns its place.
    #[cold]
    fn give(&mut self, aggregator: Holder, model_id: &str) -> usize {
        let place = if let Some(free) = self.reductions.iter().position(Reduction::is_free) {
            free
        } else if self.reductions.len() < MOST_MODELS {
            self.reductions.push(Reduction::default());
            self.reductions.len() - 1
        } else {
            // As if at random: of more models in turn than there are places, some then find theirs.
            self.replaced = self.replaced.wrapping_add(1);
            (self.replaced.wrapping_mul(0x9E37_79B9) >> 16) % MOST_MODELS
        };
        self.reductions[place].give_to(aggregator, model_id);
        place
    }

    /// Gives memory back if the last frame made it too large to be kept.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if self.reductions.get(self.last).is_some_and(|reduction| !reduction.is_small_among(MOST_MODELS)) {
            self.shrink_to_limit();
        }
    }

    #[cold]
    fn shrink_to_limit(&mut self) {
        if Reduction::are_small(self.reductions.iter()) {
            return;
        }
        let last = std::mem::take(&mut self.reductions[self.last]);
        self.reductions.clear();
        if last.is_small_among(1) {
            self.reductions.push(last);
        }
        self.last = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reject::Tally;
    use crate::{Confidences, Frame, Names};

    /// In how many of the frames, after two of each model, the memory was that of the model.
    fn remembered(models: usize, frames: usize) -> usize {
        let (aggregator, mut recent) = (Holder::new(), Recent::<u8, u8>::default());
        let mut remembered = 0;
        for frame in 0..frames + 2 * models {
            let reduction = recent.get(aggregator, &format!("m/{}", frame % models));
            let before = reduction.name.first().copied();
            let model = u8::try_from(frame % models).expect("fewer than 256");
            reduction.name = vec![model];
            remembered += usize::from(frame >= 2 * models && before == Some(model));
            recent.shrink();
        }
        assert!(recent.reductions.len() <= MOST_MODELS);
        remembered
    }

    #[test]
    fn as_many_models_as_have_places_are_all_remembered() {
        for models in [1, 2, 4, MOST_MODELS] {
            assert_eq!(remembered(models, 100), 100, "{models} models");
        }
    }

    #[test]
    fn some_of_more_models_in_turn_are_remembered() {
        assert!(remembered(MOST_MODELS + 1, 900) > 300);
        assert!(remembered(2 * MOST_MODELS, 900) > 30);
    }

    #[test]
    fn models_with_many_names_share_what_is_kept() {
        let confidences = vec![Ok(0.5); 3000];
        let names: Vec<_> = (0..3000_u32).map(|name| Ok(Box::from(name.to_ne_bytes()))).collect();
        let frame = Frame::new(3000, Confidences::Values(&confidences), Names::Texts(&names)).expect("equal lengths");
        let (aggregator, mut recent) = (Holder::new(), Recent::<(), ()>::default());
        for (model, kept) in [("one", 1), ("other", 1), ("one", 1)] {
            recent.get(aggregator, model).reduce(&frame, false, &mut Tally::default());
            assert_eq!(recent.get(aggregator, model).winners(), 3000);
            recent.shrink();
            assert_eq!(recent.reductions.len(), kept);
            assert!(recent.is_at(0, aggregator, model));
        }
    }

    #[test]
    fn the_same_model_of_another_aggregator_is_another_one() {
        let mut recent = Recent::<(), ()>::default();
        let aggregators = [Holder::new(), Holder::new()];
        recent.get(aggregators[0], "m").name = vec![1];
        assert!(recent.get(aggregators[1], "m").name.is_empty());
        assert_eq!(recent.get(aggregators[0], "m").name, [1]);
    }
}
