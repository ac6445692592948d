//! Finds the inputs that make a batch fail, so that the other inputs still succeed. An error may name the inputs at
//! fault by their index in the batch; otherwise the batch is halved until each bad input fails in a batch of its own.

use embeddery_core::EmbedError;

/// The batches that remain to be embedded. The caller embeds one batch after another and hands a failed batch back.
///
/// For `n` inputs of which `k` are bad, and errors that name no inputs, the caller makes at most
/// `2 * k * ceil(log2(n)) + 1` calls.
///
/// ```
/// use embeddery_core::EmbedError;
/// use embeddery_gateway::BatchBisector;
///
/// let embed = |batch: &[&str]| match batch.contains(&"bad") {
///     true => Err(EmbedError::invalid("an input is not valid")),
///     false => Ok(()),
/// };
/// let (mut good, mut bad) = (Vec::new(), Vec::new());
/// let mut batches = BatchBisector::new(vec![vec!["a", "bad", "b", "c"]]);
/// while let Some(batch) = batches.next_batch() {
///     match embed(&batch) {
///         Ok(()) => good.extend(batch),
///         Err(error) => bad.extend(batches.split_failed(batch, &error).into_iter().map(|(_, input)| input)),
///     }
/// }
/// assert_eq!((good, bad), (vec!["a", "b", "c"], vec!["bad"]));
/// ```
#[derive(Debug)]
pub struct BatchBisector<T> {
    /// The next batch is the last one.
    pending: Vec<Vec<T>>,
}

impl<T> BatchBisector<T> {
    /// Starts with these batches, in this order.
    pub fn new(mut batches: Vec<Vec<T>>) -> Self {
        batches.reverse();
        Self { pending: batches }
    }

    /// The next batch to embed, which is never empty. `None` when no batch is pending.
    pub fn next_batch(&mut self) -> Option<Vec<T>> {
        loop {
            let batch = self.pending.pop()?;
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// Splits a batch that failed with `error`. Returns the inputs at fault with their index in the batch; the other
    /// inputs become the next batches. A batch of one input is at fault itself.
    pub fn split_failed(&mut self, batch: Vec<T>, error: &EmbedError) -> Vec<(usize, T)> {
        if batch.len() == 1 {
            return batch.into_iter().enumerate().collect();
        }
        let is_named = |index: usize| error.inputs.iter().any(|input| input.index == index);
        // An error may also name an index that the batch does not have; then it names nothing.
        if !(0..batch.len()).any(is_named) {
            self.halve(batch);
            return Vec::new();
        }
        let (failed, rest): (Vec<_>, Vec<_>) =
            batch.into_iter().enumerate().partition(|(index, _)| is_named(*index));
        self.pending.push(rest.into_iter().map(|(_, input)| input).collect());
        failed
    }

    /// Makes the two halves of a batch the next batches.
    pub fn halve(&mut self, mut batch: Vec<T>) {
        let second = batch.split_off(batch.len() / 2);
        self.pending.push(second);
        self.pending.push(batch);
    }

    /// Removes all pending batches and returns their inputs, in no particular order.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.pending.drain(..).flatten()
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::InputError;
    use proptest::prelude::*;

    use super::*;

    /// Embeds the inputs `0..bad.len()`. Returns the good inputs, the bad inputs and the number of calls.
    fn run(bad: &[bool], errors_name_inputs: bool) -> (Vec<usize>, Vec<usize>, usize) {
        let mut batches = BatchBisector::new(vec![(0..bad.len()).collect()]);
        let (mut succeeded, mut failed, mut calls) = (Vec::new(), Vec::new(), 0);
        while let Some(batch) = batches.next_batch() {
            calls += 1;
            let faults: Vec<_> = (0..batch.len())
                .filter(|&index| bad[batch[index]])
                .map(|index| InputError { index, tokens: None })
                .collect();
            if faults.is_empty() {
                succeeded.extend(batch);
                continue;
            }
            let error = EmbedError::invalid("bad");
            let error = if errors_name_inputs { error.with_inputs(faults) } else { error };
            for (index, input) in batches.split_failed(batch.clone(), &error) {
                assert_eq!(batch[index], input);
                failed.push(input);
            }
        }
        (succeeded, failed, calls)
    }

    proptest! {
        #[test]
        fn each_good_input_succeeds_and_each_bad_input_is_named_once(
            bad in proptest::collection::vec(proptest::bool::weighted(0.2), 1..200), errors_name_inputs: bool,
        ) {
            let (succeeded, failed, calls) = run(&bad, errors_name_inputs);
            let inputs = |wanted: bool| -> Vec<usize> { (0..bad.len()).filter(|&input| bad[input] == wanted).collect() };
            prop_assert_eq!(succeeded, inputs(false), "in order");
            let mut failed = failed;
            failed.sort_unstable();
            prop_assert_eq!(&failed, &inputs(true));
            let depth = bad.len().next_power_of_two().ilog2() as usize;
            prop_assert!(calls <= 2 * failed.len() * depth + 1, "{calls} calls");
            prop_assert!(!errors_name_inputs || calls <= 2, "{calls} calls");
        }
    }

    #[test]
    fn an_error_that_names_no_input_of_the_batch_halves_it() {
        let mut batches = BatchBisector::new(vec![vec!['a', 'b', 'c']]);
        let batch = batches.next_batch().unwrap();
        let error = EmbedError::invalid("bad").with_inputs(vec![InputError { index: 9, tokens: None }]);
        assert_eq!(batches.split_failed(batch, &error), []);
        assert_eq!((batches.next_batch(), batches.next_batch()), (Some(vec!['a']), Some(vec!['b', 'c'])));
        assert_eq!(batches.next_batch(), None);
    }
}
