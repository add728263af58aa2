"""The command that draws a sample of a data file; apart from the others, since it needs no torch."""

from tqdm.auto import tqdm

from minimind_edu.data.sampling import SampleConfig, sample

__all__ = ["SampleConfig", "run_data_sample"]


def run_data_sample(config: SampleConfig) -> None:
    with tqdm(desc="reading", unit="B", unit_scale=True, delay=1.0, leave=False) as bar:

        def move(done: int, total: int) -> None:
            if done < bar.n:  # the next pass over the file
                bar.reset()
            bar.total = total
            bar.update(done - bar.n)

        report = sample(config, move)
    print(report)
