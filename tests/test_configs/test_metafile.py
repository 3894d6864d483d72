import modelindex
import pytest

from prunet_mm.spec import load_zoo, zoo_names


@pytest.fixture(scope='module')
def models(root):
    index = modelindex.load(str(root / 'model-index.yml'))
    index.build_models_with_collections()
    return {model.name.split('_')[0].replace('-', '_'): model for model in index.models}


def test_the_index_lists_the_zoo(models):
    assert sorted(models) == zoo_names()


@pytest.mark.parametrize('name', zoo_names())
def test_costs_are_those_of_the_spec_and_the_config_is_there(models, root, name):
    model, spec = models[name], load_zoo(name)
    assert model.metadata.parameters == spec.params()
    assert model.metadata.flops == spec.macs()
    assert (root / model.config).is_file()


def test_accuracies_are_quoted_for_the_networks_that_have_published_ones(models):
    quoted = {
        name: model.results[0].metrics['Top 1 Accuracy']
        for name, model in models.items()
        if model.results
    }
    assert quoted == {
        'prunet_p0': 80.3, 'prunet_p1': 81.1, 'gpunet_0': 78.9, 'gpunet_1': 80.5, 'gpunet_2': 82.2,
    }  # fmt: skip
