"""What a TrainingRun says of its data, where a split is yet to be made."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from headrace.api.parts import Part
from headrace.api.rules import rule, rules
from headrace.api.texts import Name, Text


class Split(Part):
    """How samples are dealt out."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.train + self.validation + self.test > 0.999999 "
                "&& self.train + self.validation + self.test < 1.000001",
                "train, validation and test do not add up to 1: write shares that do; what is left out is 0.7, 0.15 "
                "or 0.15",
            ),
            rule("self.train > 0.0", "train is 0: leave the model something to learn from", field=".train"),
            rule("self.test > 0.0", "test is 0: leave something to judge the model by", field=".test"),
        )
    )

    strategy: Literal["random", "stratified", "group", "time", "hash"] = Field(
        default="stratified", description="How samples are dealt out. Default stratified."
    )
    train: float = Field(default=0.7, ge=0, le=1, description="Share that the model learns from.")
    validation: float = Field(default=0.15, ge=0, le=1, description="Share that picks the best epoch.")
    test: float = Field(default=0.15, ge=0, le=1, description="Share held back for the gate.")
    seed: int = Field(default=0, ge=0, description="Seed of the deal.")


class Data(Part):
    """Where the samples are; the run's driver splits them first, into the store."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!(self.format in ['csv', 'parquet']) || has(self.label)",
                "format ${self.format} needs label: name the column that is to be predicted",
                field=".label",
            ),
            *(
                rule(
                    f"self.split.strategy != '{strategy}' || has(self.{strategy})",
                    f"split.strategy {strategy} goes by a column: name it in data.{strategy}, or take another strategy "
                    "(stratified, random, hash)",
                    field=".split.strategy",
                )
                for strategy in ("group", "time")
            ),
        )
    )

    source: Text = Field(
        description="`builtin:digits`, or any fsspec URL that the pods can read: s3://, gs://, https://.",
        json_schema_extra=rules(
            rule(
                r"self.matches('^(builtin:|[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://).+$') "
                "&& !self.startsWith('file://')",
                "${self} is a place on somebody's machine, which the pods cannot read: copy the data to a bucket and "
                "name that (s3://, gs://, https://), or take builtin:digits",
            )
        ),
    )
    format: Literal["image-folder", "voc", "coco", "mot", "csv", "parquet", "text-lines", "audio-manifest"] = Field(
        description="How the source is laid out."
    )
    label: Name | None = Field(default=None, description="Column that is to be predicted; tables must name it.")
    features: tuple[Name, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Columns the model may see. Default: all but label, id, group and time.",
    )
    id: Name | None = Field(
        default=None, description="Column that identifies a sample. Default: a hash of its content."
    )
    group: Name | None = Field(
        default=None,
        description="Column whose equal values (patient, speaker, video) must lie on one side of the split.",
    )
    time: Name | None = Field(default=None, description="Column by which the `time` strategy orders samples.")
    max_corrupt: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of unreadable samples that is left out and named; above it the data is refused.",
    )
    split: Split = Field(default=Split(), description="How samples are dealt out.")
