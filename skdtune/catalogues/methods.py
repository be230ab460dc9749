"""The methods there are: for each, the class of its settings, which names its term.

A line here is all that the package itself learns of a method. The order is that of the terms in a
training, whose losses are added up in it.
"""

from __future__ import annotations

from typing import Any

from skdtune.catalogues.catalogue import Catalogue

#: Settings classes by the key of the method, or for one that learns from the labels by its name.
METHODS: Catalogue[Any] = Catalogue(
    "method",
    {
        "cross_entropy": "skdtune.methods.cross_entropy.settings:CrossEntropyConfig",
        "label_smoothing": "skdtune.methods.label_smoothing.settings:LabelSmoothingConfig",
        "ps_kd": "skdtune.methods.ps_kd.settings:PsKdConfig",
        "drg": "skdtune.methods.drg.settings:DrgConfig",
        "dsr": "skdtune.methods.dsr.settings:DsrConfig",
        "byot": "skdtune.methods.byot.settings:ByotConfig",
        "cs_kd": "skdtune.methods.cs_kd.settings:CsKdConfig",
        "dlb": "skdtune.methods.dlb.settings:DlbConfig",
        "tf_kd_self": "skdtune.methods.tf_kd_self.settings:TfKdSelfConfig",
        "tf_kd_reg": "skdtune.methods.tf_kd_reg.settings:TfKdRegConfig",
        "bake": "skdtune.methods.bake.settings:BakeConfig",
        "ddgsd": "skdtune.methods.ddgsd.settings:DdgsdConfig",
        "frskd": "skdtune.methods.frskd.settings:FrskdConfig",
        "zipf": "skdtune.methods.zipf.settings:ZipfConfig",
    },
    "skdtune.methods",
)
